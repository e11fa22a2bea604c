#!/usr/bin/env bash
# setup.sh CACHE: fetches QEMU and busybox from Debian 13, and a kernel, into CACHE and builds the initrd. No package of
# this machine changes, and no step needs root. scripts/hwlab calls it, with HWLAB_KERNEL, under an exclusive lock.
set -euo pipefail
cache=$1
parts=$(cd "$(dirname "$0")" && pwd)
. "$parts/common.sh"

case $HWLAB_KERNEL in
  6.18) kernel_suite=trixie-backports kernel_name='[0-9.]+[+]deb13([+][0-9]+)?' ;; # igb does AF_XDP zero-copy from 6.14 on
  6.1) kernel_suite=bookworm kernel_name='6[.]1[.]0-[0-9]+' ;;
esac
oldest_qemu=10.0.3  # before it, all registers of an igb VF read as zeros, and igbvf says "PF still in reset state"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# What the guest may load, of the kernel package's 4,000 modules.
wanted=(arch crypto lib net virt fs/9p fs/netfs fs/overlayfs drivers/net/'*.ko*'
  drivers/net/{bonding,ethernet/intel,ipvlan,mdio,phy,team,vxlan}
  drivers/{char/hw_random,dca,i2c,pps,ptp,uio,vfio,virtio})
case $HWLAB_KERNEL in
  6.1) wanted+=(fs/fscache drivers/char/virtio_console.ko) ;; # which 9p needs, and what the command writes to
  *) wanted+=(drivers/iommu) ;; # built in before
esac
# What mounts the guest's root; all else is loaded from there.
first=(virtio_pci 9pnet_virtio 9p overlay)

main() {
  refuse_what_is_missing
  say "setting up in $cache, about 15 s"
  rm -rf "$cache"/{made,apt,kernel,root}
  mkdir -p "$cache"/apt/{lists/partial,debs/partial} "$cache"/root
  local mirror image
  mirror=$(mirror)
  write_apt_settings "$mirror"
  apt-get update >"$cache/log" 2>&1 || fetch_failed
  image=$(newest_image)
  apt-get install -y -d --no-install-recommends qemu-system-x86 seabios busybox-static kmod >>"$cache/log" 2>&1 || fetch_failed
  (cd "$cache/apt" && apt-get download "$image" >>"$cache/log" 2>&1) || fetch_failed
  unpack
  check_qemu
  build_initrd
  rm -rf "$cache/apt"
  echo "QEMU $qemu_version, Linux ${image#linux-image-}" >"$cache/versions"
  fingerprint >"$cache/made"
}

refuse_what_is_missing() {
  [ "$(uname -m)" = x86_64 ] || fail "an x86_64 machine, for its QEMU" "$(uname -m)" "run it on another machine"
  local program
  for program in apt-get apt-cache dpkg-deb flock gzip setpriv sha256sum tar timeout; do
    command -v "$program" >/dev/null || fail "the program $program" "none in PATH" "use Debian or Ubuntu, or install it"
  done
  [ -r "$keyring" ] || fail "the keys of Debian's archive in $keyring" "no such file" "apt-get install debian-archive-keyring"
}

# The mirror that this machine uses already.
mirror() {
  local found
  found=${HWLAB_MIRROR:-$(command apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/$')} ||
    fail "a Debian mirror" "none among apt's sources" "name one: HWLAB_MIRROR=URL"
  echo "$found"
}

write_apt_settings() {
  : >"$cache/apt/status"
  local suite
  for suite in trixie "$kernel_suite"; do
    echo "deb [arch=amd64 signed-by=$keyring] $1 $suite main"
  done >"$cache/apt/sources"
  cat >"$cache/apt/settings" <<SETTINGS
Dir::Etc::sourcelist "$cache/apt/sources";
Dir::Etc::sourceparts "-";
Dir::State::lists "$cache/apt/lists";
Dir::State::status "$cache/apt/status";
Dir::Cache::archives "$cache/apt/debs";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Debug::NoLocking "1";
APT::Sandbox::User "";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Update::Error-Mode "any";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
SETTINGS
}

apt-get() { APT_CONFIG=$cache/apt/settings command apt-get -q "$@"; }

fetch_failed() {
  tail -n 15 "$cache/log" >&2
  fail "packages of Debian's trixie and $kernel_suite" "what apt-get says above" "check the network and the mirror, or name one: HWLAB_MIRROR=URL"
}

# The newest of the kernel version that the lab is known to work with; when Debian has dropped it, the next one after it.
newest_image() {
  local all image
  all=$(APT_CONFIG=$cache/apt/settings apt-cache search --names-only "^linux-image-$kernel_name-amd64\$" |
    cut -d ' ' -f 1 | sort -V)
  image=$(grep "^linux-image-$HWLAB_KERNEL\." <<<"$all" | tail -n 1) ||
    image=$(printf '%s\n' "$all" "linux-image-$HWLAB_KERNEL" | sort -V | grep -x -A 1 "linux-image-$HWLAB_KERNEL" | sed -n 2p)
  [ -n "$image" ] || fail "a package linux-image-$HWLAB_KERNEL.* or newer" "none on the mirror" "name a mirror that has it: HWLAB_MIRROR=URL"
  echo "$image"
}

unpack() {
  local deb at # Debian 13 has merged /lib into /usr/lib
  case $HWLAB_KERNEL in 6.1) at='./lib/modules/*' ;; *) at='./usr/lib/modules/*' ;; esac
  for deb in "$cache"/apt/debs/*.deb; do dpkg-deb -x "$deb" "$cache/root"; done
  rm -rf "$cache"/root/{etc,var} "$cache"/root/usr/share/{bug,doc,lintian,locale,man}
  dpkg-deb --fsys-tarfile "$cache"/apt/linux-image-*.deb |
    tar -x -C "$cache/apt" --wildcards --no-wildcards-match-slash './boot/vmlinuz-*' "$at/modules.*" "${wanted[@]/#/$at/kernel/}" ||
    fail "a kernel package with the modules that setup.sh names" "one without some of them, see above" "name others in scripts/hwlab.d/setup.sh"
  mv "$cache"/apt/boot/vmlinuz-* "$cache/vmlinuz"
  mkdir "$cache/kernel"
  [ -d "$cache/apt/lib" ] || mv "$cache/apt/usr/lib" "$cache/apt/lib"
  mv "$cache/apt/lib" "$cache/kernel/lib"
  release=$(ls "$cache/kernel/lib/modules")
  debian sbin/depmod -b "$cache/kernel" "$release"
}

check_qemu() {
  qemu_version=$(debian bin/qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
  printf '%s\n' "$oldest_qemu" "$qemu_version" | sort -V -C ||
    fail "QEMU $oldest_qemu or later" "QEMU $qemu_version on the mirror" "name a mirror with Debian 13's updates: HWLAB_MIRROR=URL"
}

build_initrd() {
  local made=$cache/apt/initrd modules=lib/modules/$release module
  mkdir -p "$made"/{bin,dev,lower,new,proc,rw,sys,"$modules"}
  cp "$cache/root/usr/bin/busybox" "$made/bin/"
  install -m 755 "$parts/init.sh" "$made/init"
  cp "$cache/kernel/$modules/modules.dep" "$made/$modules/"
  while read -r module; do
    install -D -m 644 "$cache/kernel/$modules/$module" "$made/$modules/$module"
  done < <(debian sbin/modprobe -d "$cache/kernel" -S "$release" -a --show-depends "${first[@]}" | sed -n "s|^insmod .*/$modules/||p")
  (cd "$made" && find . | "$cache/root/usr/bin/busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$cache/initrd"
}

main
