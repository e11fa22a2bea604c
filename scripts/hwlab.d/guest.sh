# Process 1 of the guest, with the host's files as its own: finishes the machine, runs the command, ends the machine.
# scripts/hwlab writes /run/hwlab/job, which has what to run and where.
. /run/hwlab/job
export PATH=$PATH:/usr/sbin:/sbin HOME LANG=C.UTF-8 TMPDIR=/run/tmp HWLAB=1

mkdir -p /dev/pts /dev/shm /dev/hugepages /run/tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t bpf bpf /sys/fs/bpf
mount -t hugetlbfs hugetlbfs /dev/hugepages
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
chmod 1777 /run/tmp
hostname hwlab

# The host may have no modprobe; the kernel calls one by itself, for what its users ask for.
ln -s busybox /run/hwlab-bin/modprobe
[ -e /sbin/modprobe ] || ln -s /run/hwlab-bin/modprobe /sbin/modprobe
echo /run/hwlab-bin/modprobe >/proc/sys/kernel/modprobe
mkdir -p "/lib/modules/$(uname -r)"
mount --bind "$modules/$(uname -r)" "/lib/modules/$(uname -r)"
# In this order, so that eth0 and eth1 are igb's, eth2 and eth3 virtio's.
/run/hwlab-bin/modprobe -a virtio_console igb virtio_net igbvf vfio-pci vfio_iommu_type1

echo 256 >/proc/sys/vm/nr_hugepages
ip link set lo up
if [ -n "$out" ]; then
  export HWLAB_OUT=$out
  mkdir -p "$out"
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 out "$out"
fi

# The command writes into pipes, as it would on a host: a port cannot be opened a second time, as by `>/dev/stderr`.
mkfifo /run/tmp/1 /run/tmp/2
cat /run/tmp/1 >"$(echo /dev/vport*p1)" & copying=($!)
cat /run/tmp/2 >"$(echo /dev/vport*p2)" & copying+=($!)
(cd "$directory" && exec "${command[@]}") </dev/null >/run/tmp/1 2>/run/tmp/2
status=$?
# Something that the command left running may keep its output open.
(sleep 5; kill "${copying[@]}") 2>/dev/null &
wait "${copying[@]}"

echo "$status" >/run/hwlab/status
sync
echo b >/proc/sysrq-trigger
sleep 60
