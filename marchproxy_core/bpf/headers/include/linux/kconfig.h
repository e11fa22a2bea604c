/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
#pragma once
/* What bcc asks of a kernel's configuration before it compiles anything. */
#define CONFIG_BPF_SYSCALL 1
