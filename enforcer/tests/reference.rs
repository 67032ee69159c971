//! The tables of `docs/reference.md` come from the code. `ENFORCER_BLESS=1` writes them anew; what stands between them is
//! written by hand.

// `cfg(test)` says to clippy what this is: helpers of tests may unwrap as tests may.
#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use enforcer::config::{Config, SETTINGS};
    use enforcer::domain::SocketKind;
    use enforcer::domain::policy::schema;
    use enforcer::domain::unguarded::Vector;
    use enforcer::engine::Area;
    use enforcer::telemetry::metrics::{LABELS, METRICS};
    use enforcer_common::abi::config::Stat;
    use enforcer_common::hook::Hook;
    use enforcer_common::reason::Reason;

    /// What stands in front of a table; the table ends at the next empty line.
    const MARK: &str = "<!-- table: ";
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md");
    /// A page that is generated as a whole.
    const METRICS_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/generated/metrics.md");

    fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
        let mut text = format!("| {} |\n|{}\n", header.join(" | "), " --- |".repeat(N));
        for row in rows {
            writeln!(text, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | ")).unwrap();
        }
        text
    }

    fn code(text: &str) -> String {
        format!("`{text}`")
    }

    /// The fields of the project's own kinds, from the schema of the one that has all of them.
    fn policy_fields() -> Vec<[String; 4]> {
        let schema = schema::schema(Some("ClusterTrafficPolicy"));
        let definitions = &schema["$defs"];
        let spec = &schema["properties"]["spec"];
        let objects = [
            ("`spec`", spec),
            ("`subject` of a ClusterTrafficPolicy", &spec["properties"]["subject"]),
            ("ingress rule", &definitions["ingressRule"]),
            ("egress rule", &definitions["egressRule"]),
            ("listen rule", &definitions["listenRule"]),
            ("sockets rule", &definitions["socketsRule"]),
            ("peer", &definitions["peer"]),
            ("port", &definitions["port"]),
            ("selector", &definitions["selector"]),
        ];
        let rows = objects.into_iter().flat_map(|(object, schema)| {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            schema["properties"].as_object().unwrap().iter().map(move |(field, schema)| {
                let default = match schema["default"].as_str() {
                    Some(default) => code(default),
                    None if required.contains(&field.as_str().into()) => "required".to_owned(),
                    None => String::new(),
                };
                let meaning = schema["description"].as_str().unwrap().to_owned();
                [object.to_owned(), code(field), default, meaning]
            })
        });
        rows.collect()
    }

    fn generated(name: &str) -> String {
        match name {
            "hooks" => table(
                ["hook", "what it does", "needed"],
                Hook::ALL.iter().map(|hook| {
                    let needed = if hook.is_optional() { "no" } else { "yes" };
                    [code(hook.program()), hook.text().into(), needed.into()]
                }),
            ),
            "reasons" => table(
                ["reason", "meaning"],
                Reason::ALL.iter().map(|reason| [code(reason.label()), reason.text().into()]),
            ),
            "sockets" => table(
                ["name", "what", "by default"],
                SocketKind::ALL.iter().map(|kind| {
                    let allowed = Config::default().socket_kinds() & kind.bit() != 0;
                    [
                        code(kind.name()),
                        kind.text().into(),
                        if allowed { "allowed" } else { "refused" }.into(),
                    ]
                }),
            ),
            "unguarded" => table(
                ["vector", "what can be done that way"],
                Vector::ALL.iter().map(|vector| [code(vector.name()), vector.text().into()]),
            ),
            "stats" => table(
                ["stat", "counts"],
                Stat::ALL.iter().map(|stat| [code(stat.label()), stat.text().into()]),
            ),
            "policy-fields" => table(["field of", "field", "default", "meaning"], policy_fields()),
            "problems" => table(["reason"], Area::ALL.iter().map(|area| [code(area.label())])),
            "settings" => table(
                ["setting", "default", "meaning"],
                SETTINGS.iter().map(|setting| {
                    let default = setting.value(&Config::default()).plain();
                    let doc: Vec<_> = setting.doc.iter().map(|line| line.trim()).collect();
                    let (first, rest) = doc.split_first().unwrap();
                    let more = if rest.is_empty() { String::new() } else { format!(" {}", rest.join(" ")) };
                    [code(setting.key), code(&default), format!("{first}.{more}")]
                }),
            ),
            other => panic!("docs/reference.md asks for a table `{other}`, and there is none"),
        }
    }

    #[test]
    fn the_tables_of_the_reference_are_those_of_the_code() {
        let page = fs::read_to_string(PAGE).unwrap();
        let mut parts = page.split(MARK);
        let mut expected = parts.next().unwrap().to_owned();
        let mut names = Vec::new();
        for part in parts {
            let (name, rest) = part.split_once(" -->\n").unwrap();
            let rest = rest.strip_prefix('\n').unwrap();
            write!(expected, "{MARK}{name} -->\n\n{}\n{}", generated(name), after_table(rest)).unwrap();
            names.push(name);
        }
        if std::env::var_os("ENFORCER_BLESS").is_some() {
            fs::write(PAGE, &expected).unwrap();
        }
        let all =
            ["settings", "hooks", "sockets", "unguarded", "reasons", "stats", "problems", "policy-fields"];
        assert_eq!(names, all, "a table is missing from docs/reference.md");
        assert_eq!(fs::read_to_string(PAGE).unwrap(), expected, "ENFORCER_BLESS=1 writes the tables anew");
    }

    fn metrics() -> String {
        let metrics = METRICS.iter().map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| code(label)).collect();
            let kind = metric.kind.name().to_owned();
            let texts = [metric.unit.to_owned(), metric.bound.text(), labels.join(" "), metric.help.into()];
            let [unit, bound, labels, help] = texts;
            [code(metric.name), kind, unit, bound, labels, help]
        });
        let metrics = table(["metric", "kind", "unit", "series", "labels", "meaning"], metrics);
        let labels = LABELS.iter().map(|(label, text)| [code(label), (*text).to_owned()]);
        let labels = table(["label", "values"], labels);
        format!(
            "# Metrics\n\nGenerated from the table in the code, as `enforcer metrics list` prints it; \
             `ENFORCER_BLESS=1 cargo test -p enforcer` writes it anew.\n\
             [observability.md](../observability.md) says how to read them.\n\n{metrics}\n## Labels\n\n{labels}"
        )
    }

    #[test]
    fn the_page_of_metrics_is_that_of_the_code() {
        if std::env::var_os("ENFORCER_BLESS").is_some() {
            fs::write(METRICS_PAGE, metrics()).unwrap();
        }
        let found = fs::read_to_string(METRICS_PAGE).unwrap();
        assert_eq!(found, metrics(), "ENFORCER_BLESS=1 writes the page anew");
    }

    /// What follows the table that stands here, if one does.
    fn after_table(text: &str) -> &str {
        if !text.starts_with('|') {
            return text;
        }
        text.split_once("\n\n").map_or("", |(_, rest)| rest)
    }
}
