/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/* Named by bcc's prologue; it brings its own copy of what it needs. */
#pragma once
