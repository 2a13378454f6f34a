#!/bin/sh
# PID 1 until the power is switched on; then it becomes systemd. The rig lays the VM's networks and metadata before that.
for point in /sys/fs/cgroup /sys/fs/cgroup/*; do
  if mountpoint -q "$point"; then mount -o remount,bind,rw "$point"; fi
done
if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then mount -o remount,bind,rw /sys/fs/cgroup; fi
read -r _ < /rig/power
cp -r /rig/etc/. /etc/
exec /lib/systemd/systemd
