//! A dashboard as Grafana writes it.

use serde_json::{Value, json};

use super::panel::{Panel, data_source};

/// Product, by which dashboards find one another.
const TAG: &str = "enforcer";
/// Columns of the page.
const COLUMNS: u64 = 24;
/// Marks the moments at which other policy tables came into force.
const GENERATIONS: &str = r#"changes(enforcer_policy_generation{state="enforced",cluster=~"$cluster|",instance=~"$instance"}[2m]) > 0"#;

/// See the module.
#[derive(Debug)]
pub(super) struct Dashboard {
    /// Of the file, without its end.
    pub(super) name: &'static str,
    pub(super) uid: &'static str,
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    /// Behind `datasource`, `cluster` and `instance`.
    pub(super) variables: Vec<Variable>,
    pub(super) rows: Vec<(&'static str, Vec<Panel>)>,
}

/// A variable whose values Prometheus is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variable {
    name: &'static str,
    label: &'static str,
    query: &'static str,
    /// Values that are offered, as Grafana writes a regular expression.
    regex: &'static str,
}

const CLUSTER: Variable =
    Variable { name: "cluster", label: "Cluster", query: "label_values(up, cluster)", regex: "" };
const INSTANCE: Variable = Variable {
    name: "instance",
    label: "Agent",
    query: r#"label_values(enforcer_build_info{cluster=~"$cluster|"}, instance)"#,
    regex: "",
};
/// Of a workload, whether it calls or is called: `label_values` knows one label only.
pub(super) const NAMESPACE: Variable = Variable {
    name: "namespace",
    label: "Namespace",
    query: r#"query_result(count by (namespace) (label_replace(enforcer_policy_verdicts_total{cluster=~"$cluster|"}, "namespace", "$1", "source_namespace", "(.+)") or label_replace(enforcer_policy_verdicts_total{cluster=~"$cluster|"}, "namespace", "$1", "destination_namespace", "(.+)")))"#,
    regex: r#"/namespace="([^"]+)"/"#,
};
/// Of who opens flows.
pub(super) const SOURCE_NAMESPACE: Variable = Variable {
    name: "source_namespace",
    label: "Source namespace",
    query: r#"label_values(enforcer_policy_verdicts_total{cluster=~"$cluster|"}, source_namespace)"#,
    regex: "",
};
/// Of servers.
pub(super) const DESTINATION_NAMESPACE: Variable = Variable {
    name: "destination_namespace",
    label: "Destination namespace",
    query: r#"label_values(enforcer_policy_verdicts_total{cluster=~"$cluster|"}, destination_namespace)"#,
    regex: "",
};
/// By name, without what is none.
pub(super) const WORKLOAD: Variable = Variable {
    name: "workload",
    label: "Workload",
    query: r#"query_result(count by (workload) (label_replace(enforcer_policy_verdicts_total{cluster=~"$cluster|",source_namespace=~"$namespace"}, "workload", "$1", "source", "(.+)") or label_replace(enforcer_policy_verdicts_total{cluster=~"$cluster|",destination_namespace=~"$namespace"}, "workload", "$1", "destination", "(.+)")))"#,
    regex: r#"/workload="((?!_overflow|reserved:)[^"]+)"/"#,
};

impl Variable {
    fn json(self) -> Value {
        json!({
            "name": self.name,
            "label": self.label,
            "type": "query",
            "datasource": data_source(),
            "query": {"query": self.query, "refId": "StandardVariableQuery"},
            "definition": self.query,
            "regex": self.regex,
            "refresh": 2,
            "sort": 1,
            "multi": true,
            "includeAll": true,
            "allValue": ".*",
            "current": {"selected": true, "text": ["All"], "value": ["$__all"]},
            "options": [],
        })
    }
}

impl Dashboard {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": null,
            "uid": self.uid,
            "title": self.title,
            "description": self.about,
            "tags": [TAG],
            "editable": true,
            "schemaVersion": 39,
            "version": 1,
            "timezone": "browser",
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "links": [{
                "type": "dashboards",
                "title": "Enforcer",
                "tags": [TAG],
                "asDropdown": true,
                "includeVars": true,
                "keepTime": true,
                "targetBlank": false,
                "icon": "external link",
                "url": "",
                "tooltip": "",
            }],
            "annotations": {"list": [{
                "name": "Policy generations",
                "datasource": data_source(),
                "enable": true,
                "hide": false,
                "iconColor": "blue",
                "expr": GENERATIONS,
                "step": "60s",
                "titleFormat": "Policies changed",
                "textFormat": "{{instance}}",
            }]},
            "templating": {"list": self.templating()},
            "panels": self.panels(),
        })
    }

    fn templating(&self) -> Vec<Value> {
        let source = json!({
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
            "regex": "",
            "hide": 0,
            "multi": false,
            "includeAll": false,
            "options": [],
        });
        let asked = [CLUSTER, INSTANCE].into_iter().chain(self.variables.iter().copied());
        std::iter::once(source).chain(asked.map(Variable::json)).collect()
    }

    /// Rows with a heading each; panels side by side as long as they fit.
    fn panels(&self) -> Vec<Value> {
        let mut panels = Vec::new();
        let mut top = 0;
        for (title, row) in &self.rows {
            panels.push(json!({
                "id": panels.len() + 1,
                "type": "row",
                "title": title,
                "collapsed": false,
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
                "panels": [],
            }));
            top += 1;
            let (mut left, mut bottom) = (0, top);
            for panel in row {
                let (width, height) = panel.size();
                if left + width > COLUMNS {
                    (left, top) = (0, bottom);
                }
                panels.push(panel.json(panels.len() + 1, (left, top)));
                left += width;
                bottom = bottom.max(top + height);
            }
            top = bottom;
        }
        panels
    }
}
