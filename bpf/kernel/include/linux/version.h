/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * No version: porttrace never asks for one. bcc's prologue compares this with
 * 4.8 to choose between two forms of a macro that porttrace does not use.
 */
#pragma once
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE 0
