#!/bin/bash
# A host of its own for a service manager: its own process numbers, mounts, network, cgroup v2 tree (and no other) and BPF file system; the
# files are those of this host, and what is written over them is gone with it. To be run in new namespaces of all of these.
# STAGE: an empty folder. SHARED: a folder that both sides see. BINARY and DEPLOY: what is tried.
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$STAGE"
mkdir "$STAGE/up" "$STAGE/work" "$STAGE/root"
root=$STAGE/root
# Exit code 77: nothing was found out.
mount -t overlay overlay -o "lowerdir=/,upperdir=$STAGE/up,workdir=$STAGE/work" "$root" || exit 77
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount -t bpf bpf "$root/sys/fs/bpf"
mkdir "$root/try"
mount --bind "$SHARED" "$root/try"
install -m 0755 "$BINARY" "$root/usr/bin/enforcer"
rm -rf "$root/etc/enforcer" "$root/var/lib/enforcer"
install -D -t "$root/etc/enforcer" "$DEPLOY/enforcer.yaml" "$DEPLOY/workloads.yaml"
sed -i 's/^mode: audit/mode: enforce/' "$root/etc/enforcer/enforcer.yaml"
install -D "$DEPLOY/sysusers.conf" "$root/usr/lib/sysusers.d/enforcer.conf"
install -D "$DEPLOY/tmpfiles.conf" "$root/usr/lib/tmpfiles.d/enforcer.conf"
install -D -m 0644 "$DEPLOY/enforcer.service" "$root/usr/lib/systemd/system/enforcer.service"
install -D -m 0644 -t "$root/usr/lib/systemd/system" "$SHARED"/units/*
exec chroot "$root" /usr/bin/env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=try.service --log-target=null
