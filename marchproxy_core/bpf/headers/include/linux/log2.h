/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* bcc includes it and uses nothing of it. */
#pragma once
