//! An OCI image layout in one tar archive, with the manifest that Docker and Podman look for beside it.

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::archive::{ROOT, Tree};
use crate::release;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// One image of one layer.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// `registry/name:tag`.
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// Commit of the sources.
    pub(super) revision: &'a str,
    /// Seconds since 1970.
    pub(super) time: u64,
    /// A tar archive.
    pub(super) layer: Vec<u8>,
}

impl Image<'_> {
    /// The file to load.
    pub(super) fn archive(&self) -> Result<Vec<u8>> {
        let mut tree = Tree::default();
        let layer = blob(&mut tree, LAYER, self.layer.clone());
        let config = blob(&mut tree, CONFIG, text(&self.config(&layer))?);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": self.labels(),
        });
        let mut described = blob(&mut tree, MANIFEST, text(&manifest)?);
        described["platform"] = platform();
        // containerd names an image by the first, other tools by the second.
        described["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.tag(),
        });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [described] });
        let docker = json!([{
            "Config": path(&config),
            "RepoTags": [self.name],
            "Layers": [path(&layer)],
        }]);
        tree.file("oci-layout", 0o644, ROOT, text(&json!({ "imageLayoutVersion": "1.0.0" }))?);
        tree.file("index.json", 0o644, ROOT, text(&index)?);
        tree.file("manifest.json", 0o644, ROOT, text(&docker)?);
        tree.complete();
        tree.tar(self.time)
    }

    fn config(&self, layer: &Value) -> Value {
        let created = release::timestamp(self.time);
        let mut config = platform();
        config["created"] = json!(created);
        config["config"] = json!({
            "User": "0:0",
            "Entrypoint": ["/usr/bin/enforcer"],
            "Cmd": ["run"],
            "WorkingDir": "/",
            "Env": ["PATH=/usr/bin"],
            "Labels": self.labels(),
        });
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [layer["digest"]] });
        config["history"] = json!([{ "created": created, "created_by": "cargo xtask image" }]);
        config
    }

    fn labels(&self) -> Value {
        json!({
            "org.opencontainers.image.title": "enforcer",
            "org.opencontainers.image.description": "Identity-based network enforcement for Linux workloads",
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.revision": self.revision,
            "org.opencontainers.image.created": release::timestamp(self.time),
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        })
    }

    fn tag(&self) -> &str {
        // A colon before the last slash is a port.
        let name = self.name.rsplit_once('/').map_or(self.name, |(_, name)| name);
        name.rsplit_once(':').map_or("latest", |(_, tag)| tag)
    }
}

fn platform() -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({ "architecture": architecture, "os": "linux" })
}

fn text(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// Adds content under its digest, and describes it.
fn blob(tree: &mut Tree, kind: &str, content: Vec<u8>) -> Value {
    let described = json!({ "mediaType": kind, "digest": digest(&content), "size": content.len() });
    tree.file(&path(&described), 0o644, ROOT, content);
    described
}

fn path(described: &Value) -> String {
    format!("blobs/{}", described["digest"].as_str().unwrap_or_default().replace(':', "/"))
}

/// `sha256:` and 64 hex digits.
pub(super) fn digest(content: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(content).iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a string can't fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn image(name: &str) -> Image<'_> {
        let mut tree = Tree::default();
        tree.file("usr/bin/enforcer", 0o555, (65_532, 65_532), "not really");
        tree.complete();
        Image { name, version: "1.2.3", revision: "abc", time: 1_700_000_000, layer: tree.tar(1).unwrap() }
    }

    fn unpack(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 1_700_000_000);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        files
    }

    fn parse(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    /// What a descriptor names, once size and digest are as it says.
    fn follow<'a>(files: &'a BTreeMap<String, Vec<u8>>, described: &Value) -> &'a [u8] {
        let content = &files[&path(described)];
        assert_eq!(described["size"], content.len());
        assert_eq!(described["digest"], digest(content));
        content
    }

    #[test]
    fn every_digest_is_that_of_what_it_names() {
        let files = unpack(&image("localhost/enforcer:1.2.3").archive().unwrap());
        assert_eq!(parse(&files["oci-layout"])["imageLayoutVersion"], "1.0.0");
        let index = parse(&files["index.json"]);
        let manifest = parse(follow(&files, &index["manifests"][0]));
        let config = parse(follow(&files, &manifest["config"]));
        let layer = follow(&files, &manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(layer), "the layer is not compressed");
        let mut inner = tar::Archive::new(layer);
        let paths: Vec<_> =
            inner.entries().unwrap().map(|it| it.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(paths, ["usr/", "usr/bin/", "usr/bin/enforcer"]);
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1.2.3");
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    }

    #[test]
    fn docker_finds_the_same_blobs() {
        let files = unpack(&image("localhost/enforcer:1.2.3").archive().unwrap());
        let docker = parse(&files["manifest.json"]);
        assert_eq!(docker[0]["RepoTags"][0], "localhost/enforcer:1.2.3");
        let index = parse(&files["index.json"]);
        let manifest = parse(follow(&files, &index["manifests"][0]));
        assert_eq!(docker[0]["Config"], path(&manifest["config"]));
        assert_eq!(docker[0]["Layers"][0], path(&manifest["layers"][0]));
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "localhost/enforcer:1.2.3"
        );
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let bytes = || image("localhost/enforcer:1").archive().unwrap();
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(image("registry.test:5000/enforcer").tag(), "latest");
        assert_eq!(image("registry.test:5000/enforcer:7").tag(), "7");
    }
}
