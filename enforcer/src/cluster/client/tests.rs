//! What is wrong with a kubeconfig is said before anybody is asked.

use super::*;

const V1: &[u8] = include_bytes!("testdata/v1.pem");
const V3: &[u8] = include_bytes!("testdata/v3.pem");

/// A kubeconfig whose user is this.
fn kubeconfig(user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters: [{{name: c, cluster: {{server: \
         'http://127.0.0.1:1'}}}}]\ncontexts: [{{name: test, context: {{cluster: c, user: u, namespace: shop}}}}]\nusers: \
         [{{name: u, user: {user}}}]\n"
    )
}

async fn connect_with(text: &str, context: Option<&str>) -> Result<Connection, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, text).unwrap();
    connect(Some(&path), context).await.map_err(|error| error.to_string())
}

/// A token that says when it ends; nobody checks the rest of it here.
fn token(end: i64) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.x", part(r#"{"alg":"none"}"#), part(&format!(r#"{{"exp":{end},"sub":"a"}}"#)))
}

#[tokio::test]
async fn a_good_one_leads_to_its_server() {
    let connection = connect_with(&kubeconfig("{}"), None).await.unwrap();
    assert_eq!((connection.server.as_str(), connection.namespace.as_str()), ("http://127.0.0.1:1", "shop"));
    let fresh = kubeconfig(&format!("{{token: {}}}", token(seconds_now() + 60)));
    assert!(connect_with(&fresh, Some("test")).await.is_ok());
    let error = connection.client.request_text(http::Request::get("/version").body(Vec::new()).unwrap());
    let said = explain(&error.await.unwrap_err());
    assert!(said.contains("nothing listens there"), "{said}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_place_and_the_next_command() {
    let gone = connect(Some(Path::new("/nowhere/config")), None).await.unwrap_err().to_string();
    assert!(gone.contains("/nowhere/config: No such file") && gone.contains("--kubeconfig"), "{gone}");
    let good = kubeconfig("{}");
    let expired = kubeconfig(&format!("{{token: {}}}", token(1_000_000_000)));
    let old =
        kubeconfig(&format!("{{client-certificate-data: {}, client-key-data: eA==}}", STANDARD.encode(V1)));
    let missing = kubeconfig("{client-certificate: /nowhere/cert, client-key: /nowhere/key}");
    for (text, context, needles) in [
        (String::new(), None, ["is not valid", "it is empty"]),
        ("{".to_owned(), None, ["is not valid", "kubeconfig"]),
        (good.replace("current-context: test\n", ""), None, ["no", "use-context"]),
        (
            good.replace("current-context: test", "current-context: prod"),
            None,
            ["has no context prod", "it has test"],
        ),
        (good.clone(), Some("prod"), ["has no context prod", "it has test"]),
        (good.replace("cluster: c,", "cluster: d,"), None, ["can't be used", "d"]),
        (expired, None, ["expired at 2001-09-09T01:46:40Z", "kubectl create token"]),
        (old, None, ["X.509 version 1", "-extfile"]),
        (missing, None, ["/nowhere/cert", "No such file"]),
    ] {
        let said = connect_with(&text, context).await.unwrap_err();
        assert!(needles.iter().all(|needle| said.contains(needle)), "{said}");
    }
}

#[test]
fn versions_of_certificates_are_told_apart() {
    assert!(is_version_1(V1));
    assert!(!is_version_1(V3));
    for odd in [&b""[..], b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----", &V1[..80]] {
        assert!(!is_version_1(odd));
    }
}

#[test]
fn refusals_say_what_to_do() {
    for (code, needle) in
        [(401, "give it a new one"), (403, "give the account the right"), (500, "tried again")]
    {
        let mut status = kube::core::Status::failure("no", "Reason");
        status.code = code;
        let said = explain(&kube::Error::Api(Box::new(status)));
        assert!(said.contains(needle) && said.contains(&code.to_string()), "{said}");
    }
}
