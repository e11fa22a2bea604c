# What scripts/hwlab and its setup share; read with $cache and $parts set.

say() { echo "hwlab: $*" >&2; }
fail() { say "need $1 - have $2 - fix: $3"; exit 125; }

# A program of Debian 13's, out of the folder that setup unpacked and with the libraries in there.
libraries=$cache/root/usr/lib/x86_64-linux-gnu
debian=(env QEMU_MODULE_DIR="$libraries/qemu" "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries")
debian() { "${debian[@]}" "$cache/root/usr/$1" "${@:2}"; }

# Changes when something that was set up is missing or cut short, or what sets up is another version.
fingerprint() {
  { cat "$parts"/{common,init,setup}.sh
    cd "$cache" && find initrd kernel root versions vmlinuz -printf '%p %y %s\n' 2>&1 | LC_ALL=C sort; } | sha256sum
}
