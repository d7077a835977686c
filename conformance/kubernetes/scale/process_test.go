// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process is one of the cluster's, by this machine's number.
type process int

// find is the process of a node that was started by such a command, zero if there is none.
func (w *world) find(node string, command ...string) process {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		w.b.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(text), strings.Join(command, "\x00")) {
			continue
		}
		groups, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if err != nil || !strings.Contains(string(groups), "/"+w.c.Name+"/"+node+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			w.b.Fatal(err)
		}
		return process(pid)
	}
	return 0
}

// must is find of what there has to be.
func (w *world) must(node string, command ...string) process {
	w.b.Helper()
	p := w.find(node, command...)
	if p == 0 {
		w.b.Fatalf("%s has no process %v", node, command)
	}
	return p
}

func (w *world) agentOf(node string) process {
	return w.must(node, "/bin/fairlead", "agent", "--node="+node)
}

func (p process) file(name string) string { return fmt.Sprintf("/proc/%d/%s", p, name) }

// usage is what a process has used so far, and what it holds.
type usage struct {
	cpu, pod      time.Duration // pod: with its probes, and what else runs in its cgroup
	rss, own, max float64       // MB; own is without pages of files, max the highest rss
	received      int           // bytes from the API server, as they went through TCP
	sent          int
}

// ticks are those of /proc, which are the same everywhere.
const ticks = 100

func (w *world) usage(p process) usage {
	w.b.Helper()
	var u usage
	u.cpu = w.cpu(p)
	u.pod = w.podCPU(p)
	text, err := os.ReadFile(p.file("status"))
	if err != nil {
		w.b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		for name, to := range map[string]*float64{"VmRSS:": &u.rss, "RssAnon:": &u.own, "VmHWM:": &u.max} {
			if f[0] == name {
				n, err := strconv.ParseFloat(f[1], 64)
				if err != nil {
					w.b.Fatal(err)
				}
				*to = n / 1024
			}
		}
	}
	u.received, u.sent = w.traffic(p)
	return u
}

// stat are the fields of /proc's stat from the third on.
func (p process) stat() ([]string, error) {
	text, err := os.ReadFile(p.file("stat"))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])), nil
}

func (w *world) cpu(p process) time.Duration {
	w.b.Helper()
	f, err := p.stat()
	if err != nil {
		w.b.Fatal(err)
	}
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		w.b.Fatalf("stat of %d: %v", p, f)
	}
	return time.Duration(user+system) * time.Second / ticks
}

// podCPU is what the cgroup of the process' pod has used.
func (w *world) podCPU(p process) time.Duration {
	w.b.Helper()
	text, err := os.ReadFile(p.file("cgroup"))
	if err != nil {
		w.b.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		w.b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if !slices.Contains(strings.Split(f[1], ","), "cpuacct") {
			continue
		}
		for mount := range strings.Lines(string(mounts)) {
			if of := strings.Fields(mount); of[2] == "cgroup" && slices.Contains(strings.Split(of[3], ","), "cpuacct") {
				return time.Duration(w.number(filepath.Join(of[1], filepath.Dir(f[2]), "cpuacct.usage"), `^(\d+)`))
			}
		}
	}
	_, path, ok := strings.Cut(strings.TrimSpace(string(text)), "0::")
	if !ok {
		w.b.Fatalf("process %d is in no cgroup: %s", p, text)
	}
	for mount := range strings.Lines(string(mounts)) {
		if of := strings.Fields(mount); of[2] == "cgroup2" {
			return time.Duration(w.number(filepath.Join(of[1], filepath.Dir(path), "cpu.stat"), `(?m)^usage_usec (\d+)`)) * time.Microsecond
		}
	}
	w.b.Fatal("no cgroup tells of CPU time")
	return 0
}

func (w *world) number(file, pattern string) int64 {
	w.b.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		w.b.Fatal(err)
	}
	found := regexp.MustCompile(pattern).FindSubmatch(text)
	if found == nil {
		w.b.Fatalf("%s: %s", file, text)
	}
	n, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		w.b.Fatal(err)
	}
	return n
}

var (
	bytesReceived = regexp.MustCompile(`bytes_received:(\d+)`)
	bytesSent     = regexp.MustCompile(`bytes_acked:(\d+)`)
)

// traffic is what went over the connections that a process has to the API server, which is
// the only thing that it reaches by TCP.
func (w *world) traffic(p process) (received, sent int) {
	w.b.Helper()
	out, err := exec.Command("nsenter", "--net="+p.file("ns/net"), "ss", "-Htinp", "state", "established", "dport", "=", ":443", "or", "dport", "=", ":6443").CombinedOutput()
	if err != nil {
		w.b.Fatalf("ss: %v\n%s", err, out)
	}
	ours := false
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, " \t") {
			ours = strings.Contains(line, fmt.Sprintf("pid=%d,", p))
			if !strings.Contains(line, "bytes_") {
				continue
			}
		}
		if !ours {
			continue
		}
		for pattern, to := range map[*regexp.Regexp]*int{bytesReceived: &received, bytesSent: &sent} {
			if f := pattern.FindStringSubmatch(line); f != nil {
				n, err := strconv.Atoi(f[1])
				if err != nil {
					w.b.Fatal(err)
				}
				*to += n
			}
		}
	}
	return received, sent
}
