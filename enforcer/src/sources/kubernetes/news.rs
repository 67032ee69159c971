//! News of the cgroup tree, as far as it may be about pods.

use std::collections::BTreeSet;

use tokio::sync::broadcast;

use crate::domain::cgroup_path::{PodUid, owner, pod_of};
use crate::sources::directories::Moved;

/// Directories that came or went.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Whether they may be those of any pod.
    pub(super) all: bool,
    /// The pods whose directories did, or those of containers in them.
    pub(super) pods: BTreeSet<PodUid>,
}

impl News {
    /// Much else of a host comes and goes.
    fn take(&mut self, moved: &Moved) {
        let path = match moved {
            Moved::Came(directory) => &directory.path,
            Moved::Went(path) => path,
            Moved::Rescanned => {
                self.all = true;
                return;
            }
        };
        let owner = owner(path);
        let of_container = pod_of(path).filter(|_| owner.container.is_some());
        self.pods.extend(owner.pod.or(of_container.map(|(_, uid)| uid)));
    }
}

/// Waits until directories came or went; `None` if they are not looked after any more.
pub(super) async fn news(moved: &mut Option<broadcast::Receiver<Moved>>) -> Option<News> {
    let Some(receiver) = moved else { return std::future::pending().await };
    let mut news = News::default();
    match receiver.recv().await {
        Ok(moved) => news.take(&moved),
        // What was missed is looked up.
        Err(broadcast::error::RecvError::Lagged(_)) => news.all = true,
        Err(broadcast::error::RecvError::Closed) => return None,
    }
    loop {
        match receiver.try_recv() {
            Ok(moved) => news.take(&moved),
            Err(broadcast::error::TryRecvError::Lagged(_)) => news.all = true,
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => {
                return Some(news);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "3b8c2d1e-0f4a-4c6b-9d7e-5a1b2c3d4e5f";

    #[test]
    fn a_directory_is_news_for_the_pod_that_it_is_or_lies_in() {
        let id = "0d".repeat(32);
        let pod = format!("/kubepods/burstable/pod{UID}");
        let uid = PodUid::parse(UID).unwrap();
        for (path, expected) in [
            (pod.clone(), &[uid][..]),
            (format!("{pod}/{id}"), &[uid]),
            (format!("{pod}/{id}/below"), &[]),
            (format!("/docker/{id}"), &[]),
            ("/kubepods/burstable".to_owned(), &[]),
        ] {
            let mut news = News::default();
            news.take(&Moved::Went(path.clone()));
            assert_eq!(
                (news.all, news.pods.into_iter().collect::<Vec<_>>().as_slice()),
                (false, expected),
                "{path}"
            );
        }
        let mut news = News::default();
        news.take(&Moved::Rescanned);
        assert!(news.all);
    }
}
