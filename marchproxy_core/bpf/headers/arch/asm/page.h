/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* For bcc's ring buffer macros, which our programs do not use. */
#pragma once
#define PAGE_SIZE 4096
