//! `enforcer top`

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::Answer;
use super::args::{Top, TopOrder};
use super::context::{Context, block_on};
use super::render::top::{self as render, Key, View};
use crate::api::client::Client;
use crate::domain::edges::{Edges, Order, rates};

/// A shorter interval measures little but itself.
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) fn top(context: &mut Context, asked: &Top) -> anyhow::Result<Answer> {
    if asked.interval < SHORTEST {
        bail!("--interval has to be at least 100ms: counters are read anew each time");
    }
    if asked.batch {
        return batch(context, asked);
    }
    if !std::io::stdout().is_terminal() {
        bail!("the live view needs a terminal; `enforcer top --batch` prints tables");
    }
    live(context, asked)
}

fn look(client: &Client) -> anyhow::Result<(Instant, Edges)> {
    let edges = block_on(async { Ok(client.edges().await?) })?;
    Ok((Instant::now(), edges))
}

fn batch(context: &mut Context, asked: &Top) -> anyhow::Result<Answer> {
    let client = context.client();
    let mut before = look(&client)?;
    for round in 0..asked.iterations.unwrap_or(1) {
        std::thread::sleep(asked.interval);
        let now = look(&client)?;
        let seconds = (now.0 - before.0).as_secs_f64();
        let rates = rates(&before.1, &now.1, seconds, order(asked.sort));
        let text = render::table(&rates[..rates.len().min(asked.rows)]);
        let gap = if round == 0 { "" } else { "\n" };
        context.screen.data(&format!("{gap}{text}"))?;
        before = now;
    }
    Ok(Answer::Yes)
}

fn live(context: &mut Context, asked: &Top) -> anyhow::Result<Answer> {
    let client = context.client();
    let mut order = order(asked.sort);
    let mut before = look(&client)?;
    let mut view = View::open()?;
    let mut rest = asked.iterations;
    let mut shown = Vec::new();
    loop {
        let now = look(&client)?;
        if now.0 - before.0 >= SHORTEST {
            shown = rates(&before.1, &now.1, (now.0 - before.0).as_secs_f64(), order);
            before = now;
        }
        view.draw(&shown[..shown.len().min(asked.rows)], shown.len(), order)?;
        if rest == Some(0) {
            return Ok(Answer::Yes);
        }
        rest = rest.map(|rest| rest - 1);
        match view.wait(asked.interval)? {
            Some(Key::Quit) => return Ok(Answer::Yes),
            Some(Key::Turn(steps)) => order = turned(order, steps),
            None => {}
        }
    }
}

fn order(asked: TopOrder) -> Order {
    match asked {
        TopOrder::Flows => Order::Flows,
        TopOrder::Denied => Order::Denied,
        TopOrder::Bytes => Order::Bytes,
        TopOrder::Active => Order::Active,
        TopOrder::Rtt => Order::RoundTrip,
    }
}

/// The column so many steps to the right, round and round.
fn turned(order: Order, steps: isize) -> Order {
    let place = Order::ALL.iter().position(|one| *one == order).unwrap_or_default();
    let length = Order::ALL.len();
    Order::ALL[(place + length).saturating_add_signed(steps) % length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_turn_round() {
        assert_eq!(turned(Order::Flows, -1), Order::RoundTrip);
        assert_eq!(turned(Order::RoundTrip, 1), Order::Flows);
        assert_eq!(turned(Order::Denied, 1), Order::Bytes);
    }
}
