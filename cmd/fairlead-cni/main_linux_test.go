// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"fairlead.io/fairlead/cni"
)

const previous = `{"cniVersion": "1.0.0",  "interfaces": [{"name": "veth1"}], "ips": [{"address": "fd00::5/64"}, {"address": "10.1.0.5/24", "interface": 0}], "unknown": [1.50]}`

// call is one of the runtime's.
type call struct {
	*testing.T
	run    string
	conf   string // fields of the configuration, beyond what all have
	out    bytes.Buffer
	errs   bytes.Buffer
	lookAt func(netns, ifName string) (cni.Link, error)
}

func newCall(t *testing.T) *call {
	return &call{T: t, run: t.TempDir(), conf: `"waitSeconds": 1, "prevResult": ` + previous,
		lookAt: func(netns, ifName string) (cni.Link, error) {
			if netns != "/some/netns" || ifName != "eth0" {
				return cni.Link{}, fmt.Errorf("there is no %s in %s", ifName, netns)
			}
			return cni.Link{Index: 7, Name: "veth1", Cookie: 9}, nil
		}}
}

// add is an ADD for a pod of a namespace.
func (c *call) add(namespace string) error {
	return c.plugin().add(c.args(namespace))
}

func (c *call) plugin() plugin {
	return plugin{out: &c.out, errs: &c.errs, now: func() time.Time { return time.Unix(1, 0) }, lookAt: c.lookAt}
}

func (c *call) args(namespace string) *skel.CmdArgs {
	a := &skel.CmdArgs{ContainerID: "abc", Netns: "/some/netns", IfName: "eth0",
		StdinData: fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "n", "type": "fairlead-cni", "runDir": %q, %s}`, c.run, c.conf)}
	if namespace != "" {
		a.Args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=" + namespace + ";K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1"
	}
	return a
}

// closed leaves what an agent would that knows these namespaces, and one that is open.
func (c *call) closed(namespaces ...string) {
	c.Helper()
	if err := cni.WriteClosed(c.run, cni.Closed{Namespaces: namespaces, Open: []string{"open"}}); err != nil {
		c.Fatal(err)
	}
}

func (c *call) records() []cni.Record {
	c.Helper()
	all, err := cni.ReadAll(c.run)
	if err != nil {
		c.Fatal(err)
	}
	return all
}

func (c *call) agent(answers ...cni.Answer) {
	ctx, cancel := context.WithCancel(c.Context())
	done := make(chan error)
	go func() {
		done <- cni.Serve(ctx, c.run, func(ctx context.Context, id cni.ID, f func(cni.Answer) bool) {
			for _, a := range answers {
				if !f(a) {
					return
				}
			}
			<-ctx.Done()
		})
	}()
	c.Cleanup(func() { cancel(); <-done })
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(c.run, cni.Socket)); err == nil {
			return
		}
	}
}

// goesOn checks that the runtime got the result as it was.
func (c *call) goesOn(err error) {
	c.Helper()
	if err != nil || strings.TrimSpace(c.out.String()) != previous {
		c.Errorf("%v, and the result is %s", err, c.out.String())
	}
}

// refused checks that the runtime is to try again, and what the pod's Event says.
func (c *call) refused(err error, words ...string) {
	c.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater || c.out.Len() > 0 {
		c.Fatalf("%v, and the result is %s", err, c.out.String())
	}
	for _, w := range append(words, "shop/web") {
		if !strings.Contains(e.Msg, w) {
			c.Errorf("%q says nothing of %q", e.Msg, w)
		}
	}
	if got := c.records(); len(got) > 0 {
		c.Errorf("a pod that does not run has left %v", got)
	}
}

func TestGuarded(t *testing.T) {
	c := newCall(t)
	c.closed("shop")
	c.agent(cni.Answer{State: "a moment"}, cni.Answer{Guarded: true, Ready: true})
	c.goesOn(c.add("shop"))
	got := c.records()
	if len(got) != 1 || fmt.Sprint(got[0].Addresses) != "[10.1.0.5 fd00::5]" || got[0].Key() != "shop/web" || got[0].UID != "u-1" ||
		got[0].Link != (cni.Link{Index: 7, Name: "veth1", Cookie: 9}) || got[0].ID != (cni.ID{Container: "abc", IfName: "eth0"}) {
		t.Errorf("the record is %+v", got)
	}
	if err := c.plugin().check(c.args("shop")); err != nil {
		t.Errorf("check: %v", err)
	}
	for range 2 { // the second time there is nothing
		if err := c.plugin().del(c.args("shop")); err != nil || len(c.records()) > 0 {
			t.Errorf("del: %v, %v", err, c.records())
		}
	}
}

func TestNoAgent(t *testing.T) {
	t.Run("closed", func(t *testing.T) {
		c := newCall(t)
		c.closed("shop")
		c.refused(c.add("shop"), "does not answer", "no agent answers at "+c.run, "policy governs the namespace", "tried again", "kubectl -n fairlead-system get pods", "fairlead-agent", "fairlead agent uninstall on this node")
	})
	t.Run("open", func(t *testing.T) {
		c := newCall(t)
		c.closed("other")
		c.goesOn(c.add("open"))
		if len(c.records()) != 1 {
			t.Error("an agent that comes later does not hear of it")
		}
	})
	t.Run("a namespace that is newer", func(t *testing.T) {
		c := newCall(t)
		c.closed("other")
		c.refused(c.add("shop"), "does not answer", "no agent of this node has told of the namespace", "tried again")
		// As soon as an agent answers it starts, whatever stands in the file.
		c.agent(cni.Answer{Guarded: true, Ready: true})
		c.goesOn(c.add("shop"))
	})
	t.Run("before any agent", func(t *testing.T) {
		c := newCall(t)
		c.refused(c.add("shop"), "has told yet")
	})
	t.Run("exempt", func(t *testing.T) {
		c := newCall(t)
		c.conf += `, "failClosed": "always"`
		c.goesOn(c.add("kube-system"))
	})
	t.Run("never", func(t *testing.T) {
		c := newCall(t)
		c.conf += `, "failClosed": "never"`
		c.closed("shop")
		c.goesOn(c.add("shop"))
	})
	t.Run("del", func(t *testing.T) {
		c := newCall(t)
		begun := time.Now()
		if err := c.plugin().del(c.args("shop")); err != nil || time.Since(begun) > time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		c.conf = `"failClosed": "nonsense"`
		if err := c.plugin().del(c.args("shop")); err != nil {
			t.Errorf("of a configuration that is broken: %v", err)
		}
	})
	t.Run("tells whence it is called", func(t *testing.T) {
		c := newCall(t)
		conf := filepath.Join(c.run, "net.d")
		c.conf += fmt.Sprintf(`, "stateDir": %q`, filepath.Join(conf, cni.StateName))
		c.refused(c.add("shop"), "take fairlead-cni out of the files in "+conf)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if all, err := cni.Places(c.run); err != nil || len(all) != 1 || all[0] != (cni.Place{ConfDir: conf, BinDir: filepath.Dir(self)}) {
			t.Errorf("places are %v, %v", all, err)
		}
	})
	t.Run("status", func(t *testing.T) {
		c := newCall(t)
		if err := c.plugin().status(c.args("")); err != nil {
			t.Error(err)
		}
	})
}

func TestSlowAgent(t *testing.T) {
	c := newCall(t)
	c.closed("shop")
	c.agent(cni.Answer{State: "the pod is not known yet"})
	c.refused(c.add("shop"), "is not done", "the pod is not known yet")
	c.goesOn(c.add("open"))
	// A check tells what an agent says, and asks for nothing else.
	if err := c.plugin().check(c.args("open")); err == nil || !strings.Contains(err.Error(), "the pod is not known yet") {
		t.Errorf("check: %v", err)
	}
}

func TestGuardedWithoutItsRoutes(t *testing.T) {
	c := newCall(t)
	c.conf = `"waitSeconds": 30, "prevResult": ` + previous
	c.closed("shop")
	c.agent(cni.Answer{Guarded: true, State: "no Envoy"})
	c.goesOn(c.add("shop"))
	if !strings.Contains(c.errs.String(), "no Envoy") {
		t.Errorf("it says %s", c.errs.String())
	}
}

// What can never be guarded is not waited for.
func TestNoVeth(t *testing.T) {
	c := newCall(t)
	c.conf = `"waitSeconds": 60, "prevResult": ` + previous
	c.lookAt = func(string, string) (cni.Link, error) {
		return cni.Link{}, errors.New("its interface eth0 is a macvlan")
	}
	c.closed("shop")
	begun := time.Now()
	c.refused(c.add("shop"), "is a macvlan")
	c.goesOn(c.add("open"))
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestWrongUse(t *testing.T) {
	for what, conf := range map[string]string{
		"not chained":     `"waitSeconds": 1`,
		"bad setting":     `"failClosed": "perhaps", "prevResult": ` + previous,
		"bad address":     `"prevResult": {"ips": [{"address": "10.1.0.5"}]}`,
		"no addresses to": `"prevResult": {"ips": 3}`,
	} {
		c := newCall(t)
		c.conf = conf
		var e *types.Error
		if err := c.add("shop"); !errors.As(err, &e) || e.Code != types.ErrInvalidNetworkConfig || c.out.Len() > 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A container that is nobody's pod, and a pod without an address.
	c := newCall(t)
	c.goesOn(c.add(""))
	c = newCall(t)
	c.conf = `"prevResult": {"cniVersion": "1.0.0"}`
	if err := c.add("shop"); err != nil || len(c.records()) > 0 {
		t.Errorf("a pod without an address: %v, %v", err, c.records())
	}
}

func TestCheckFindsAnotherInterface(t *testing.T) {
	c := newCall(t)
	c.closed("shop")
	c.goesOn(c.add("open"))
	c.lookAt = func(string, string) (cni.Link, error) { return cni.Link{Index: 8, Name: "veth2", Cookie: 9}, nil }
	if err := c.plugin().check(c.args("open")); err == nil || !strings.Contains(err.Error(), "veth2") {
		t.Errorf("check: %v", err)
	}
	c.lookAt = func(string, string) (cni.Link, error) { return cni.Link{}, errors.New("it is gone") }
	if err := c.plugin().check(c.args("open")); err == nil {
		t.Error("an interface that is gone is in order")
	}
	if err := cni.Remove(c.run, cni.ID{Container: "abc", IfName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if err := c.plugin().check(c.args("open")); err != nil {
		t.Errorf("a pod that was there before the plugin: %v", err)
	}
}

func TestGC(t *testing.T) {
	c := newCall(t)
	c.closed("shop")
	c.goesOn(c.add("open"))
	c.conf = `"cni.dev/valid-attachments": [{"containerID": "abc", "ifname": "eth0"}, {"containerID": "other", "ifname": "eth0"}]`
	if err := c.plugin().gc(c.args("")); err != nil || len(c.records()) != 1 {
		t.Errorf("a valid one: %v, %v", err, c.records())
	}
	c.conf = `"waitSeconds": 1`
	if err := c.plugin().gc(c.args("")); err == nil || len(c.records()) != 1 {
		t.Errorf("without a list: %v, %v", err, c.records())
	}
	c.conf = `"cni.dev/valid-attachments": [{"containerID": "other", "ifname": "eth0"}]`
	if err := c.plugin().gc(c.args("")); err != nil || len(c.records()) != 0 {
		t.Errorf("one that is not valid: %v, %v", err, c.records())
	}
}
