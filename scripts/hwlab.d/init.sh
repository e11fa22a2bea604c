#!/bin/busybox sh
# The guest's /init, in the initrd: mounts the host's files, read-only below a scratch layer, and goes on there with guest.sh.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modprobe -a virtio_pci 9pnet_virtio 9p overlay
nine=trans=virtio,version=9p2000.L,msize=512000
# Without extended attributes, since the layer above asks for some of each file.
mount -t 9p -o "$nine,ro,noxattr,cache=loose" root /lower || mount -t 9p -o "$nine,ro,cache=loose" root /lower # before 6.4
mount -t tmpfs scratch /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work root /new
mount -t tmpfs run /new/run
mkdir /new/run/hwlab /new/run/lock
mount -t 9p -o "$nine" job /new/run/hwlab
mkdir /new/run/hwlab-bin
cp /bin/busybox /new/run/hwlab-bin/
for each in dev proc sys; do mount --move "/$each" "/new/$each"; done
exec chroot /new /bin/bash /run/hwlab/guest
