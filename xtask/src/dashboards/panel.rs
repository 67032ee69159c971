//! One panel: what it asks, and how Grafana shows the answer.

use serde_json::{Value, json};

/// What every query of an agent's own metrics selects by. The bar makes it match where there is no such label.
const AGENT: &str = r#"cluster=~"$cluster|",instance=~"$instance""#;
/// What every query of flows between namespaces selects by.
const FLOW: &str = r#"cluster=~"$cluster|",instance=~"$instance",source_namespace=~"$source_namespace",destination_namespace=~"$destination_namespace""#;

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Series,
    Stat,
    Table,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Panel {
    look: Look,
    title: &'static str,
    about: &'static str,
    unit: &'static str,
    width: u64,
    /// From this value on it is shown as bad.
    bad_from: Option<f64>,
    bars: bool,
    queries: Vec<(String, &'static str)>,
}

impl Panel {
    /// Lines over time, half as wide as the page.
    pub(super) fn series(title: &'static str, unit: &'static str, about: &'static str) -> Self {
        let queries = Vec::new();
        Self { look: Look::Series, title, about, unit, width: 12, bad_from: None, bars: false, queries }
    }

    /// One number, an eighth of the page.
    pub(super) fn stat(title: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self { look: Look::Stat, width: 3, ..Self::series(title, unit, about) }
    }

    /// Rows of the moment, as wide as the page.
    pub(super) fn table(title: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self { look: Look::Table, width: 24, ..Self::series(title, unit, about) }
    }

    /// Adds a query. `@agent` and `@flow` stand for the usual matchers.
    pub(super) fn ask(mut self, query: &str, legend: &'static str) -> Self {
        self.queries.push((query.replace("@agent", AGENT).replace("@flow", FLOW), legend));
        self
    }

    /// Shows everything from this value on as bad.
    pub(super) fn bad_from(mut self, value: f64) -> Self {
        self.bad_from = Some(value);
        self
    }

    /// Other than usual.
    pub(super) fn wide(mut self, columns: u64) -> Self {
        self.width = columns;
        self
    }

    /// Bars that add up, instead of lines.
    pub(super) fn stacked(mut self) -> Self {
        self.bars = true;
        self
    }

    /// Columns and lines of the page's grid.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.width, if self.look == Look::Stat { 4 } else { 8 })
    }

    /// As Grafana writes it.
    pub(super) fn json(&self, id: usize, (x, y): (u64, u64)) -> Value {
        let (width, height) = self.size();
        let kind = match self.look {
            Look::Series => "timeseries",
            Look::Stat => "stat",
            Look::Table => "table",
        };
        let mut panel = json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.about,
            "datasource": data_source(),
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
            "fieldConfig": self.fields(),
            "options": self.options(),
            "targets": self.targets(),
        });
        if self.look == Look::Table {
            panel["transformations"] = transformations();
        }
        panel
    }

    fn targets(&self) -> Vec<Value> {
        let moment = self.look != Look::Series;
        let target = |(at, (query, legend)): (u8, &(String, &'static str))| {
            json!({
                "refId": char::from(b'A' + at).to_string(),
                "datasource": data_source(),
                "editorMode": "code",
                "expr": query,
                "legendFormat": legend,
                "instant": moment,
                "range": !moment,
                "format": if self.look == Look::Table { "table" } else { "time_series" },
            })
        };
        (0..).zip(&self.queries).map(target).collect()
    }

    fn fields(&self) -> Value {
        let mut steps = vec![json!({"color": "green", "value": null})];
        steps.extend(self.bad_from.map(|value| json!({"color": "red", "value": value})));
        let mut defaults = json!({
            "unit": self.unit,
            "min": 0,
            "thresholds": {"mode": "absolute", "steps": steps},
        });
        if self.look == Look::Series {
            defaults["custom"] = json!({
                "drawStyle": if self.bars { "bars" } else { "line" },
                "fillOpacity": if self.bars { 60 } else { 10 },
                "lineWidth": 1,
                "showPoints": "never",
                "stacking": {"mode": if self.bars { "normal" } else { "none" }},
                "thresholdsStyle": {"mode": if self.bad_from.is_some() { "line" } else { "off" }},
            });
        }
        let overrides = if self.look == Look::Table { edge_links() } else { json!([]) };
        json!({"defaults": defaults, "overrides": overrides})
    }

    fn options(&self) -> Value {
        match self.look {
            Look::Series => json!({
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "lastNotNull"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Look::Stat => json!({
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                "colorMode": if self.bad_from.is_some() { "background" } else { "value" },
                "graphMode": "none",
            }),
            Look::Table => json!({
                "showHeader": true,
                "sortBy": [{"displayName": "Value", "desc": true}],
            }),
        }
    }
}

/// The one that the variable names.
pub(super) fn data_source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn transformations() -> Value {
    json!([{"id": "organize", "options": {"excludeByName": {"Time": true, "edge": true}}}])
}

/// From the ends of an edge to their own pages, and a column wide enough for a command.
fn edge_links() -> Value {
    const PAIR: &str = "/d/enforcer-verdicts?var-source_namespace=${__data.fields.source_namespace}&var-destination_namespace=${__data.fields.destination_namespace}&${datasource:queryparam}&${__url_time_range}";
    let link = |title: &str, end: &str| {
        let url = format!(
            "/d/enforcer-workload?var-namespace=${{__data.fields.{end}_namespace}}&var-workload=${{__data.fields.{end}}}&${{datasource:queryparam}}&${{__url_time_range}}"
        );
        json!({
            "matcher": {"id": "byName", "options": end},
            "properties": [{"id": "links", "value": [{"title": title, "url": url}]}],
        })
    };
    json!([
        link("This source's own page", "source"),
        link("This destination's own page", "destination"),
        {
            "matcher": {"id": "byName", "options": "explain"},
            "properties": [
                {"id": "custom.width", "value": 560},
                {"id": "custom.inspect", "value": true},
                {"id": "links", "value": [{"title": "Run on the host: ${__value.text}", "url": PAIR}]},
            ],
        },
    ])
}

/// By how much series of a counter grew in the time that is shown, to the last digit. `increase` would guess at the ends of
/// that time, and would miss the first count of a series: an edge that was refused once would not be there.
pub(super) fn grown(series: &str) -> String {
    let last = format!("last_over_time({series}[$__range])");
    format!("(({last} - {series} offset $__range >= 0) or {last})")
}

/// A query of edges, with the command that explains each as a further column. What no pattern fits has no command.
pub(super) fn explained(edges: &str) -> String {
    const COMMAND: &str = "enforcer policy explain";
    let joined = format!(
        r#"label_join({edges}, "edge", ";", "source_namespace", "source", "destination_namespace", "destination", "port", "protocol")"#
    );
    let patterns = [
        ("([^;]+);([^;]+);([^;]+);([^;]+);([0-9]+);(TCP|UDP|SCTP)", "--from $1/$2 --to $3/$4:$5/$6"),
        (";reserved:host;([^;]+);([^;]+);([0-9]+);(TCP|UDP|SCTP)", "--from host --to $1/$2:$3/$4"),
        ("([^;]+);([^;]+);;reserved:host;([0-9]+);(TCP|UDP|SCTP)", "--from $1/$2 --to host:$3/$4"),
        ("([^;]+);([^;]+);;reserved:world;([0-9]+);(TCP|UDP|SCTP)", "--from $1/$2 --to ADDRESS:$3/$4"),
    ];
    patterns.iter().fold(joined, |query, (pattern, ends)| {
        format!(r#"label_replace({query}, "explain", "{COMMAND} {ends}", "edge", "{pattern}")"#)
    })
}
