//! Who may do what at the Unix socket, by the kernel's word about the peer.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::Error;

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// May do everything, like root: the agent's own user.
    pub owner: u32,
    /// Members of this group may read.
    pub readers: Option<u32>,
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Everything.
    Write,
    /// GET.
    Read,
    /// Nothing.
    Nothing,
}

/// Who is at the other end, as the kernel recorded it when the peer connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process; `None` if it is none of this PID namespace.
    pub pid: Option<u32>,
}

impl Access {
    /// The rule for this process, with the group of that name as readers.
    pub fn of_this_process(readers: Option<&str>) -> Result<Self, Error> {
        let readers = readers.map(group_id).transpose()?;
        Ok(Self { owner: Uid::effective().as_raw(), readers })
    }

    /// What this peer may do.
    ///
    /// Membership counts by the peer's own group or by the user database. Supplementary groups that only the
    /// process has (e.g. by systemd's `SupplementaryGroups=`) are not in the peer credentials, so they don't count.
    pub fn right(&self, peer: Option<Peer>) -> Right {
        match peer {
            peer if let Some(right) = self.right_by_user(peer) => right,
            Some(peer) if self.readers.is_some_and(|group| peer.gid == group || is_member(peer, group)) => {
                Right::Read
            }
            _ => Right::Nothing,
        }
    }

    /// The same, where the user alone says it: without a look at the database of users.
    pub fn right_by_user(&self, peer: Option<Peer>) -> Option<Right> {
        let Some(peer) = peer else { return Some(Right::Nothing) };
        (peer.uid == 0 || peer.uid == self.owner).then_some(Right::Write)
    }
}

fn group_id(name: &str) -> Result<u32, Error> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err(Error::NoGroup { group: name.to_owned() }),
    }
}

fn is_member(peer: Peer, group: u32) -> bool {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(peer.uid)) else { return false };
    let Ok(name) = std::ffi::CString::new(user.name) else { return false };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&Gid::from_raw(group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights() {
        let access = Access { owner: 990, readers: Some(77) };
        // A number that no user database has.
        let stranger = 4_000_000_001;
        for (peer, right) in [
            (Some(Peer { uid: 0, gid: 0, pid: None }), Right::Write),
            (Some(Peer { uid: 990, gid: 5, pid: None }), Right::Write),
            (Some(Peer { uid: stranger, gid: 77, pid: None }), Right::Read),
            (Some(Peer { uid: stranger, gid: 78, pid: None }), Right::Nothing),
            (None, Right::Nothing),
        ] {
            assert_eq!(access.right(peer), right, "{peer:?}");
        }
        let closed = Access { owner: 990, readers: None };
        assert_eq!(closed.right(Some(Peer { uid: stranger, gid: 77, pid: None })), Right::Nothing);
    }

    #[test]
    fn a_missing_group_is_named() {
        let error = Access::of_this_process(Some("no-such-group-here")).unwrap_err();
        assert!(error.to_string().contains("groupadd --system no-such-group-here"), "{error}");
    }
}
