// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package proxy

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
)

// Envoy is run on Linux only; elsewhere the package compiles, for the commands
// that work on files.

var terminate = os.Interrupt

func unprivileged(*exec.Cmd, int) {}

func manyFiles() error { return nil }

func pidNamespace() uint64 { return 0 }

func owner(fs.FileInfo) int { return -1 }

type leftover struct {
	pid         int
	exe, config string
	args        []string
}

func findEnvoys(string) ([]leftover, error) {
	return nil, errors.ErrUnsupported
}

func watch(int, chan<- struct{}) error { return errors.ErrUnsupported }

type memoryGroup string

func memoryLimit(memoryGroup) uint64 { return 0 }

type memoryKills struct{ group memoryGroup }

func (memoryKills) grown() bool { return false }

func outOfMemoryKills(int) memoryKills { return memoryKills{} }

func boundsHere() bounds { return bounds{} }

func usesOf(int) uses { return uses{} }

func mainThread(int) thread { return thread{} }

func limitMemory(_, _ int, bytes uint64) error {
	if bytes == 0 {
		return nil
	}
	return errors.ErrUnsupported
}

func startWithoutMore(cmd *exec.Cmd) error { return cmd.Start() }
