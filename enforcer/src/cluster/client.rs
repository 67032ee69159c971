//! From a kubeconfig, or from what a pod is given, to a client; and from its errors to sentences.
//!
//! What can be known to be wrong without asking the server is found before it is asked: a file that is not there, a context
//! that is not in it, a token whose time is over, a certificate that the TLS library will not take.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kube::Client;
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig};

use crate::domain::timestamp::Timestamp;

/// Longest time for a connection to come about, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence within an answer. A watch is silent for as long as nothing changes, but the server ends each after less.
const READ: Duration = Duration::from_mins(5);
/// Longest time for a request to leave.
const WRITE: Duration = Duration::from_secs(30);
/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A way to the API server.
#[derive(Clone)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// The server's address.
    pub server: String,
    /// The namespace that is meant where none is named.
    pub namespace: String,
    /// Where all of it was found, for people.
    pub origin: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that was named is not there, or can't be read.
    #[error("read the kubeconfig {}: {problem}; name another with --kubeconfig, or correct its path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The file is no kubeconfig.
    #[error("the kubeconfig {origin} is not valid: {problem}")]
    Parse {
        /// The file, or the files.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The file names no context, or one that it does not have.
    #[error(
        "the kubeconfig {origin} {problem}; it has {known}: `kubectl config use-context NAME` chooses one"
    )]
    Context {
        /// The file, or the files.
        origin: String,
        /// What is wrong.
        problem: String,
        /// Names of its contexts.
        known: String,
    },
    /// In a pod, and without the pod's service account.
    #[error(
        "this is a pod, and its service account can't be used: {0}; set `automountServiceAccountToken: true`, or name a \
         kubeconfig with --kubeconfig"
    )]
    Account(InClusterError),
    /// No way is known.
    #[error(
        "no way to an API server is known: this is no pod (KUBERNETES_SERVICE_HOST is not set), and neither KUBECONFIG nor \
         {} names one; name a kubeconfig with --kubeconfig",
        default.display()
    )]
    Nowhere {
        /// The usual place.
        default: PathBuf,
    },
    /// The time of a token is over.
    #[error(
        "the token of {origin} expired at {at}: get a new one (`kubectl create token` for a service account), or name its \
         file with `tokenFile`, which is read again whenever it changes"
    )]
    Expired {
        /// Where it was found.
        origin: String,
        /// When, RFC 3339.
        at: String,
    },
    /// A client certificate of X.509 version 1.
    #[error(
        "the client certificate of {origin} is of X.509 version 1, which the TLS library refuses although kubectl takes it: \
         make it anew with an extension, e.g. `openssl x509 -req ... -extfile <(echo keyUsage=digitalSignature)`"
    )]
    OldCertificate {
        /// Where it was found.
        origin: String,
    },
    /// Anything else that keeps a client from being made.
    #[error("the credentials of {origin} can't be used: {problem}")]
    Credentials {
        /// Where they were found.
        origin: String,
        /// What is wrong.
        problem: String,
    },
}

/// Looks for a way to the API server: the kubeconfig that is named, else what a pod is given, else `KUBECONFIG` and
/// `~/.kube/config`. Nothing is asked of the server.
///
/// # Errors
/// What is missing or wrong, where, and what to do.
pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Connection, Error> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let default = PathBuf::from(variable("HOME").unwrap_or_else(|| "/root".to_owned())).join(".kube/config");
    let (config, origin) = if let Some(path) = kubeconfig {
        of_file(path, context).await?
    } else if context.is_none() && variable("KUBERNETES_SERVICE_HOST").is_some() {
        (Config::incluster().map_err(Error::Account)?, format!("the service account in {ACCOUNT}"))
    } else if let Some(list) = variable("KUBECONFIG") {
        // Several files are one, by kubectl's rules.
        if list.contains(':') {
            let origin = format!("KUBECONFIG={list}");
            let file = Kubeconfig::from_env();
            let invalid = |problem: String| Error::Parse { origin: origin.clone(), problem };
            let file = file.map_err(|error| invalid(error.to_string()))?;
            (of_parsed(file.unwrap_or_default(), &origin, context).await?, origin)
        } else {
            of_file(Path::new(&list), context).await?
        }
    } else if default.is_file() {
        of_file(&default, context).await?
    } else {
        return Err(Error::Nowhere { default });
    };
    client(config, origin)
}

async fn of_file(path: &Path, context: Option<&str>) -> Result<(Config, String), Error> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Read { path: path.to_owned(), problem: error.to_string() })?;
    if text.trim().is_empty() {
        return Err(Error::Parse { origin, problem: "it is empty".to_owned() });
    }
    // By its path, because what it names is relative to its folder.
    let parsed = Kubeconfig::read_from(path);
    let parsed =
        parsed.map_err(|error| Error::Parse { origin: origin.clone(), problem: error.to_string() })?;
    Ok((of_parsed(parsed, &origin, context).await?, origin))
}

async fn of_parsed(file: Kubeconfig, origin: &str, context: Option<&str>) -> Result<Config, Error> {
    let names: Vec<String> = file.contexts.iter().map(|context| context.name.clone()).collect();
    let known = if names.is_empty() { "no contexts".to_owned() } else { names.join(", ") };
    let chosen = context.map(str::to_owned).or_else(|| file.current_context.clone());
    let problem = match chosen.filter(|chosen| !chosen.is_empty()) {
        None => Some("says nothing of a current context".to_owned()),
        Some(chosen) if !names.contains(&chosen) => Some(format!("has no context {chosen}")),
        Some(_) => None,
    };
    if let Some(problem) = problem {
        return Err(Error::Context { origin: origin.to_owned(), problem, known });
    }
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(file, &options)
        .await
        .map_err(|error| Error::Credentials { origin: origin.to_owned(), problem: error.to_string() })
}

/// Makes the client, if nothing that can be seen now keeps it from working.
fn client(mut config: Config, origin: String) -> Result<Connection, Error> {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    config.write_timeout = Some(WRITE);
    // Where nobody's certificate is looked at, a machine without any, such as the image, is good enough.
    if config.cluster_url.scheme_str() == Some("http") || config.accept_invalid_certs {
        config.root_cert.get_or_insert_default();
    }
    // The time in which a connection lay idle does not count against the next answer.
    config.reset_reader_on_write = true;
    let credentials = |problem: String| Error::Credentials { origin: origin.clone(), problem };
    // The only way to what is kept from logs.
    let auth = serde_json::to_value(&config.auth_info).unwrap_or_default();
    let text = |field: &str| auth.get(field).and_then(serde_json::Value::as_str).filter(|it| !it.is_empty());
    if let Some(end) = text("token").and_then(expiry)
        && end <= seconds_now()
    {
        let at = Timestamp { seconds: end, nanos: 0 }.whole_seconds();
        return Err(Error::Expired { origin, at });
    }
    let certificate = match (text("client-certificate-data"), text("client-certificate")) {
        (Some(data), _) => STANDARD.decode(data).ok(),
        (None, Some(path)) => Some(
            std::fs::read(path)
                .map_err(|error| credentials(format!("read the client certificate {path}: {error}")))?,
        ),
        (None, None) => None,
    };
    if certificate.is_some_and(|pem| is_version_1(&pem)) {
        return Err(Error::OldCertificate { origin });
    }
    let server = config.cluster_url.to_string();
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| credentials(in_full(&error)))?;
    Ok(Connection { client, server: server.trim_end_matches('/').to_owned(), namespace, origin })
}

fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// When a token ends, in seconds since 1970, if it is one that says so (a JWT).
fn expiry(token: &str) -> Option<i64> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims.get("exp")?.as_i64()
}

/// Whether the first certificate is of version 1: its first field is then the serial number, and not the version (RFC 5280,
/// 4.1).
fn is_version_1(pem: &[u8]) -> bool {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let body = || {
        let text = std::str::from_utf8(pem).ok()?;
        let (_, rest) = text.split_once(BEGIN)?;
        let (body, _) = rest.split_once("-----END")?;
        STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
    };
    let content = |der: &[u8]| -> Option<Vec<u8>> {
        const SEQUENCE: u8 = 0x30;
        let [SEQUENCE, length, rest @ ..] = der else { return None };
        let long = usize::from(length.checked_sub(0x80).unwrap_or(0));
        rest.get(long..).map(<[u8]>::to_vec)
    };
    let first = body().and_then(|der| content(&content(&der)?)).and_then(|fields| fields.first().copied());
    // An INTEGER where a version would be `[0]`.
    first == Some(0x02)
}

/// What an error means: what failed, and what to do about it.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => "the server does not know who asks (401): the token or certificate is not valid for it any more; give it a \
                    new one, which is read within a minute"
                .to_owned(),
            403 => format!(
                "the server does not allow it (403): {}; give the account the right, as deploy/kubernetes does",
                status.message
            ),
            404 => "the server has no such resource (404): install its definition, or an API server that has it".to_owned(),
            429 => format!("the server has too much to do (429): {}; it is tried again", status.message),
            code if code >= 500 => format!("the server failed ({code}): {}; it is tried again", status.message),
            code => format!("the server refused ({code}): {}", status.message),
        },
        kube::Error::Auth(error) => format!("the credentials can't be used: {}", in_full(error)),
        error => {
            let text = in_full(error);
            let hint = [
                ("UnknownIssuer", "its certificate is not signed by the kubeconfig's certificate authority"),
                ("NotValidForName", "its certificate is not for the address that is dialled: name one of its subjects"),
                ("Expired", "its certificate, or this host's clock, is of another time"),
                ("refused", "nothing listens there: is it started, and is this its address?"),
                ("timed out", "nothing answers there: is the way to it open?"),
                ("elapsed", "nothing answers there: is the way to it open?"),
                ("dns error", "its name is not known here"),
            ];
            match hint.iter().find(|(needle, _)| text.contains(needle)) {
                Some((_, hint)) => format!("{text}; {hint}"),
                None => text,
            }
        }
    }
}

/// An error with its causes, each said once.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
