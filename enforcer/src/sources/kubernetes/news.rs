//! News of the cgroup tree, as far as it may be about pods.

use std::collections::BTreeSet;

use tokio::sync::broadcast;

use crate::domain::cgroup_path::{PodUid, owner, pod_of};
use crate::sources::directories::Moved;

/// Directories that came or went.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Whether some of them may be pods'.
    pub(super) pods: bool,
    /// The pods in which directories of containers did.
    pub(super) containers: BTreeSet<PodUid>,
}

impl News {
    /// Containers and all the rest of a host come and go much more often than pods.
    fn take(&mut self, moved: &Moved) {
        let path = match moved {
            Moved::Came(directory) => &directory.path,
            Moved::Went(path) => path,
            Moved::Rescanned => {
                self.pods = true;
                return;
            }
        };
        let owner = owner(path);
        self.pods |= owner.pod.is_some();
        if let Some((_, uid)) = pod_of(path).filter(|_| owner.container.is_some()) {
            self.containers.insert(uid);
        }
    }
}

/// Waits until directories came or went; `None` if they are not looked after any more.
pub(super) async fn news(moved: &mut Option<broadcast::Receiver<Moved>>) -> Option<News> {
    let Some(receiver) = moved else { return std::future::pending().await };
    let mut news = News::default();
    match receiver.recv().await {
        Ok(moved) => news.take(&moved),
        // What was missed is looked up.
        Err(broadcast::error::RecvError::Lagged(_)) => news.pods = true,
        Err(broadcast::error::RecvError::Closed) => return None,
    }
    loop {
        match receiver.try_recv() {
            Ok(moved) => news.take(&moved),
            Err(broadcast::error::TryRecvError::Lagged(_)) => news.pods = true,
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => {
                return Some(news);
            }
        }
    }
}
