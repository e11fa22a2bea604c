# The machine that QEMU emulates: $machine is its command line. Read by scripts/hwlab with $cache, $job and $out set.

virtio=romfile=,disable-legacy=on,iommu_platform=on,ats=on
machine=(
  "${debian[@]}" "$cache/root/usr/bin/qemu-system-x86_64" -L "$cache/root/usr/share/qemu" -L "$cache/root/usr/share/seabios"
  -nodefaults -no-reboot -display none
  # Emulated even where there is a /dev/kvm: the same everywhere, and a nested one may open and yet run no kernel.
  -machine q35,kernel-irqchip=split -accel tcg,thread=multi -cpu max -smp 2 -m "${HWLAB_MEMORY:-2048}"
  -device intel-iommu,intremap=on,caching-mode=on,device-iotlb=on
  # Behind ports of their own, so that eth0 is 0000:01:00.0, eth1 0000:02:00.0. A hub is a wire.
  -device pcie-root-port,id=port0,chassis=1,slot=1 -device pcie-root-port,id=port1,chassis=2,slot=2
  -netdev hubport,id=eth0,hubid=0 -device igb,bus=port0,netdev=eth0,mac=52:54:00:00:00:0a,romfile=
  -netdev hubport,id=eth1,hubid=0 -device igb,bus=port1,netdev=eth1,mac=52:54:00:00:00:0b,romfile=
  -netdev hubport,id=eth2,hubid=1 -device "virtio-net-pci,netdev=eth2,mac=52:54:00:00:01:0a,$virtio"
  -netdev hubport,id=eth3,hubid=1 -device "virtio-net-pci,netdev=eth3,mac=52:54:00:00:01:0b,$virtio"
  -kernel "$cache/vmlinuz" -initrd "$cache/initrd"
  # init_on_alloc: else clearing the hugepages takes two seconds. From no_timer_check on: a busy host lets time pass unevenly,
  # which the kernel else takes for a broken timer, and panics ("timer doesn't work through Interrupt-remapped IO-APIC").
  -append "console=ttyS0 quiet panic=-1 intel_iommu=on iommu=pt net.ifnames=0 init_on_alloc=0 no_timer_check tsc=reliable nowatchdog"
  -virtfs local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap
  -virtfs "local,path=${job//,/,,},mount_tag=job,security_model=none"
  ${out:+-virtfs "local,path=${out//,/,,},mount_tag=out,security_model=none"}
  # The kernel's console, and what the command writes.
  -chardev "file,id=kernel,path=${job//,/,,}/kernel" -serial chardev:kernel
  -add-fd fd=3,set=1 -chardev file,id=stdout,path=/dev/fdset/1,append=on
  -add-fd fd=4,set=2 -chardev file,id=stderr,path=/dev/fdset/2,append=on
  -device virtio-serial-pci,max_ports=4
  -device virtserialport,nr=1,chardev=stdout -device virtserialport,nr=2,chardev=stderr
)
