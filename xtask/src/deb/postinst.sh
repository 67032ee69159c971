#!/bin/sh
set -e

# A root that is not the running one has no manager to be told.
[ -z "$DPKG_ROOT" ] || exit 0

if [ "$1" = configure ]; then
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers enforcer.conf
        systemd-tmpfiles --create enforcer.conf
    elif ! getent group enforcer >/dev/null; then
        groupadd --system enforcer
    fi
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        if [ -z "$2" ]; then
            # First installation. The configuration that comes with it refuses nothing.
            systemctl enable --now enforcer.service
        else
            # The kernel goes on enforcing while the agent is exchanged.
            systemctl try-restart enforcer.service
        fi
    fi
fi
