// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/xxh3"
)

// build is what Envoys are started from. Two Envoys of the same build differ in
// nothing but the bank.
type build struct {
	// file is the binary, open: what is started is what was looked at, and an Envoy
	// whose binary was replaced in its place can be started again. It closes itself
	// when the build is forgotten.
	file    *os.File
	name    string // the binary's path, for people
	args    []string
	content [Banks][]byte // bootstraps; nil if not known
	// hash is of the binary's content and of all that it is given.
	hash string
}

// findBuild looks at what an Envoy would be started from now. The binary is read
// each time: it may have been replaced in its place.
func findBuild(opts *Options, paths Paths) (*build, error) {
	f, err := os.Open(opts.EnvoyPath)
	if err != nil {
		return nil, fmt.Errorf("find envoy: %w", err)
	}
	b := &build{file: f, name: f.Name(), args: []string{
		"--disable-hot-restart",
		"--drain-time-s", strconv.Itoa(max(1, int(opts.DrainTime.Round(time.Second)/time.Second))),
		"--log-level", "warning",
		// It warns of a deprecated field once per route.
		"--component-log-level", "misc:error",
	}}
	if opts.Concurrency > 0 {
		b.args = append(b.args, "--concurrency", strconv.Itoa(opts.Concurrency))
	}
	h := xxh3.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, fmt.Errorf("read envoy: %w", err)
	}
	fmt.Fprintf(h, "%q", b.args)
	within := boundsHere()
	own := opts.memoryNow()
	if own > 0 && (within.memory == 0 || own < within.memory) {
		within.memory = own
	}
	for bank := range b.content {
		if b.content[bank], err = boundedBootstrap(opts.Node, bank, paths, within); err != nil {
			return nil, err
		}
		h.Write(b.content[bank])
	}
	if own > 0 {
		fmt.Fprintf(h, "memory %d", own)
	}
	sum := h.Sum128().Bytes()
	b.hash = hex.EncodeToString(sum[:8])
	return b, nil
}

// foundBuild is what an Envoy was started from that is found running; what cannot
// be found out is missing, and the build is not good for a start then.
func foundBuild(l leftover) *build {
	bank, hash, ok := parseBootstrapFile(l.config)
	b := &build{name: l.exe, hash: hash}
	// Its binary, even if another one has its name by now.
	f, err := os.Open(fmt.Sprintf("/proc/%d/exe", l.pid))
	if err != nil || !ok || len(l.args) < 2 {
		return b
	}
	b.file, b.args = f, l.args[2:]
	if content, err := os.ReadFile(l.config); err == nil {
		b.content[bank] = content
	}
	return b
}

// bootstrapFile is the path of a bootstrap. A running Envoy's bank and build are
// told by it, because it is part of the command line.
func bootstrapFile(runDir string, bank int, hash string) string {
	return filepath.Join(runDir, fmt.Sprintf("envoy-%d-%s.json", bank, hash))
}

// parseBootstrapFile is bootstrapFile's reverse.
func parseBootstrapFile(path string) (bank int, hash string, ok bool) {
	name, ok := strings.CutSuffix(strings.TrimPrefix(filepath.Base(path), "envoy-"), ".json")
	number, hash, two := strings.Cut(name, "-")
	bank, err := strconv.Atoi(number)
	if !ok || !two || err != nil || bank < 0 || bank >= Banks {
		return 0, "", false
	}
	return bank, hash, true
}

// writeBootstrap writes the file for a bank and removes those of other builds,
// which whatever ran in the bank before does not need any more.
func (b *build) writeBootstrap(runDir string, bank int) (path string, err error) {
	path = bootstrapFile(runDir, bank, b.hash)
	old, err := filepath.Glob(filepath.Join(runDir, fmt.Sprintf("envoy-%d-*.json", bank)))
	if err != nil {
		return "", fmt.Errorf("look for bootstraps: %w", err)
	}
	for _, f := range old {
		if f != path {
			if err := os.Remove(f); err != nil {
				return "", fmt.Errorf("remove old bootstrap: %w", err)
			}
		}
	}
	if is, err := os.ReadFile(path); err == nil && bytes.Equal(is, b.content[bank]) {
		return path, nil // it can be started again though nothing can be written
	}
	if err := os.WriteFile(path, b.content[bank], 0o644); err != nil {
		return "", fmt.Errorf("write bootstrap: %w", err)
	}
	return path, nil
}
