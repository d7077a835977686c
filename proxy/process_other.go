// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package proxy

import (
	"errors"
	"os"
	"os/exec"
)

// Envoy is run on Linux only; elsewhere the package compiles, for the commands
// that work on files.

var terminate = os.Interrupt

func unprivileged(*exec.Cmd, int) {}

func manyFiles() error { return nil }

type leftover struct {
	pid         int
	exe, config string
	args        []string
}

func findEnvoys(string) ([]leftover, error) {
	return nil, errors.ErrUnsupported
}

func watch(int, chan<- struct{}) error { return errors.ErrUnsupported }
