/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/* Named by bcc's prologue; nothing of it is used. */
#pragma once
