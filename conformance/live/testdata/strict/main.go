// SPDX-License-Identifier: Apache-2.0

// Strict is an Envoy that rejects what others take: regular expressions of more than
// 100 instructions.
package main

import (
	"fmt"
	"os"
	"syscall"
)

// envoy is the path of the real one; set by the linker.
var envoy string

const limit = `{"layered_runtime": {"layers": [{"name": "strict", "static_layer": {"re2.max_program_size.error_level": 100}}]}}`

func main() {
	err := syscall.Exec(envoy, append(append([]string{envoy}, os.Args[1:]...), "--config-yaml", limit), os.Environ())
	fmt.Fprintln(os.Stderr, "strict:", err)
	os.Exit(1)
}
