// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab/load"
)

// requests are sent from a place by the program that pods have for it.
func requests(t *testing.T, name, from string, rs ...load.Request) []load.Result {
	t.Helper()
	in, err := json.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code, err := Exec(t.Context(), name, from, []string{"request"}, Stdio{In: bytes.NewReader(in), Out: &out, Err: &errs})
	if err != nil || code != 0 {
		t.Fatalf("request in %s: exit %d, %v: %s", from, code, err, errs.String())
	}
	var got []load.Result
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("results %s: %v", out.String(), err)
	}
	return got
}

// One object touches one file of the cluster folder.
func TestOneObjectOneFile(t *testing.T) {
	need.Root(t)
	st := testLab(t, "t-one-file", shop)
	before := modified(t, st.Run)
	apply(t, "t-one-file", "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {a: 1}\n")
	var changed []string
	for f, at := range modified(t, st.Run) {
		if !before[f].Equal(at) {
			changed = append(changed, f)
		}
	}
	if len(changed) != 1 || !strings.HasSuffix(changed[0], ".widget.w.yaml") {
		t.Errorf("one object changed the files %v", changed)
	}
}

// modified are the files of a lab's cluster folder with their times.
func modified(t *testing.T, run string) map[string]time.Time {
	t.Helper()
	entries, err := os.ReadDir(run + "/source")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]time.Time{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = info.ModTime()
	}
	return out
}

const everything = `apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node-1, containers: [{name: main, image: fairlead/load}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host-client}
spec: {nodeName: node-1, hostNetwork: true, containers: [{name: main, image: fairlead/load}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: near}}
spec: {nodeName: node-1, containers: [{name: main, image: fairlead/echo, ports: [
  {name: http, containerPort: 80}, {name: tcp, containerPort: 81}, {name: tcp-banner, containerPort: 82}, {containerPort: 83}, {name: u, containerPort: 84, protocol: UDP}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: far}}
spec: {nodeName: node-2, containers: [{name: main, image: fairlead/echo, ports: [
  {name: http, containerPort: 80}, {name: tcp, containerPort: 81}, {name: tcp-banner, containerPort: 82}, {containerPort: 83}, {name: u, containerPort: 84, protocol: UDP}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, labels: {app: host}}
spec: {nodeName: node-2, hostNetwork: true, containers: [{name: main, image: fairlead/echo, ports: [
  {name: http, containerPort: 80}, {name: tcp, containerPort: 81}, {name: tcp-banner, containerPort: 82}, {containerPort: 83}, {name: u, containerPort: 84, protocol: UDP}]}]}
`

// Every protocol, in both families, to pods of the same node, of the other one, and
// in a node's own network; from a pod, a node's network and the outside.
func TestProtocols(t *testing.T) {
	need.Root(t)
	st := testLab(t, labName("proto"), everything)
	var rs []load.Request
	var to []string
	for _, p := range st.Pods {
		if !p.Ready {
			t.Fatalf("%s: %s", p.Name, p.State)
		}
		if strings.HasSuffix(p.Name, "client") {
			continue
		}
		for _, a := range p.Addresses {
			for _, u := range []string{"http://%s:80/", "h2c://%s:80/", "grpc://%s:80/a.B/C", "ws://%s:80/ws", "tcp://%s:81", "tcp-banner://%s:82", "http://%s:83/", "tcp://%s:83", "udp://%s:84"} {
				rs = append(rs, load.Request{URL: fmt.Sprintf(u, host(a))})
				to = append(to, p.Name)
			}
		}
	}
	for _, from := range []string{"client", "host-client", "outside"} {
		for i, r := range requests(t, labName("proto"), from, rs...) {
			if r.Answer == nil || r.Answer.Pod != to[i] || r.Answer.Peer != r.Local || r.Answer.Local != r.Remote {
				t.Errorf("%s from %s: %+v, answer %+v", rs[i].URL, from, r, r.Answer)
			}
		}
	}
}

// The load generator runs in a pod as a command.
func TestLoadInPod(t *testing.T) {
	need.Root(t)
	testLab(t, labName("load"), shop)
	var out bytes.Buffer
	code, err := Exec(t.Context(), labName("load"), "client", []string{"load", "--url", "http://each:8080/", "--rate", "200", "--duration", "2s", "--fresh", "0.5", "-4", "-6"}, Stdio{Out: &out})
	if err != nil || code != 0 {
		t.Fatalf("exit %d %v: %s", code, err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var sum load.Summary
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &sum); err != nil || !sum.Final || sum.OK < 350 || sum.OK != sum.Requests || sum.By["web"] != sum.OK {
		t.Errorf("%+v %v", sum, err)
	}
}
