//! Tokens and roles.

use super::*;
use crate::apiserver::User;

#[tokio::test]
async fn a_token_that_ends_is_worth_nothing() {
    let server = ApiServer::start();
    server.anonymous(None);
    server.allow("secret", User::admin("alice"));
    let with: Api<Pod> = Api::all(client(&server, "secret"));
    assert!(with.list(&ListParams::default()).await.is_ok());
    let without: Api<Pod> = Api::all(client(&server, ""));
    assert_eq!(refused(without.list(&ListParams::default()).await).1, "Unauthorized");
    server.expire("secret");
    assert_eq!(refused(with.list(&ListParams::default()).await).0, 401);
    assert_eq!(server.asked().iter().filter(|asked| asked.user == "alice").count(), 1);
}

#[tokio::test]
async fn a_role_says_what_may_be_done() {
    let server = ApiServer::start();
    let role = json!({ "rules": [
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] },
        { "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get"] },
    ]});
    let local = json!({ "metadata": { "namespace": "kube-system" }, "rules": [
        { "apiGroups": [""], "resources": ["secrets"], "verbs": ["*"] },
    ]});
    server.allow("t", User::nobody("bob").with_role(&role).with_role(&local));
    server.put(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "mine" } }));
    let client = client(&server, "t");
    let pods: Api<Pod> = Api::all(client.clone());
    assert!(pods.list(&ListParams::default()).await.is_ok());
    let (code, reason, message) =
        refused(pods.watch(&kube::api::WatchParams::default(), "0").await.map(|_| ()));
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "pods is forbidden: User \"bob\" cannot watch resource \"pods\" in API group \"\" at the cluster scope"
    );
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    assert!(maps.get("mine").await.is_ok());
    let (_, _, message) = refused(maps.get("other").await);
    assert!(message.starts_with("configmaps \"other\" is forbidden: User \"bob\" cannot get"), "{message}");
    let secrets = |namespace: &str| -> Api<k8s_openapi::api::core::v1::Secret> {
        Api::namespaced(client.clone(), namespace)
    };
    assert!(secrets("kube-system").list(&ListParams::default()).await.is_ok());
    assert_eq!(refused(secrets("default").list(&ListParams::default()).await).0, 403);
}

#[tokio::test]
async fn the_status_is_another_resource_to_roles() {
    let server = ApiServer::start();
    let role = json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["*"] }] });
    server.allow("t", User::nobody("bob").with_role(&role));
    server.put(pod("a", "n1"));
    let pods: Api<Pod> = Api::default_namespaced(client(&server, "t"));
    let patch = kube::api::Patch::Merge(json!({ "status": { "phase": "Failed" } }));
    let (code, _, message) =
        refused(pods.patch_status("a", &kube::api::PatchParams::default(), &patch).await);
    assert_eq!(code, 403);
    assert!(message.contains("cannot patch resource \"pods/status\""), "{message}");
}
