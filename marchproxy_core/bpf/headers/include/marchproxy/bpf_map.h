/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* How a program names a map: by its place in the sequence of maps that it is loaded with. */
#pragma once

/* MAP_MARK comes from marchproxy_core/bpf/instructions.py, which puts the map's descriptor in its place. */
#define BPF_MAP(number) ((void *)bpf_pseudo_fd(1, MAP_MARK + (number)))
