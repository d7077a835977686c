// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the kernel programs and their compiled form. It knows nothing
// of where rules come from: package datapath loads the programs and writes the maps.
//
// The objects are committed, so that building Fairlead needs no compiler; go
// generate rebuilds them byte for byte with clang-19.
//
// Map layouts are in fl_types.h.
package bpf

//go:generate go tool bpf2go -go-package bpf -cc clang-19 -strip llvm-strip-19 -target bpfel -type fl_svc_key -type fl_svc -type fl_slot_key -type fl_backend -type fl_rev_key -type fl_rev -type fl_aff_key -type fl_aff -type fl_event -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" Sock sock.c
//go:generate go tool bpf2go -go-package bpf -cc clang-19 -strip llvm-strip-19 -target bpfel -type fl_addr -type fl_address -type fl_range_key -type fl_prefix_key -type fl_policy_key -type fl_policy -type fl_pod -type fl_bridge -type fl_settings -type fl_tuple -type fl_conn -type fl_reason -type fl_action -type fl_path -type fl_side -type fl_direction -type fl_mode -type fl_bank -type fl_own -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" Net net.c
