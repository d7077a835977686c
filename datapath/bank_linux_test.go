// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// bank reads what the node's kernel and its status say.
func (w *world) bank(node string) (inKernel uint32, status int) {
	w.t.Helper()
	w.pinned(node, mapBank, &inKernel)
	return inKernel, call[Status](w.proc[node], "Status", None{}).Bank
}

// pinned reads the only entry of a map.
func (w *world) pinned(node, name string, out any) {
	w.t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(w.options(node).PinDir, name), nil)
	check(w.t, err)
	defer m.Close()
	check(w.t, m.Lookup(uint32(0), out))
}

// The listeners of one bank take over from those of the other, with new connections,
// and lose none.
func testBanks(t *testing.T, w *world) {
	const port, first, second = outPort + 40, outPort + 41, outPort + 42
	proxy := w.start("a")
	for _, p := range []Proxy{
		{Port: port, Name: "bank0"}, {Port: port + BankOffset, Name: "bank1"},
		{Port: first, Name: "first"}, {Port: second + BankOffset, Name: "second"},
	} {
		call[None](proxy, "Redirected", p)
	}
	vip := "10.96.1.1:80"
	edit := func(listener, inbound uint16) {
		w.set("a", func(p *Planned) {
			p.Services = append(p.Services, w.service("10.96.1.1", 80, model.TCP, plan.HTTP, "b1"))
			p.capture("a1")
			p.Ports[outbound], p.Inbound = listener, inbound
		})
		w.ready()
	}
	dir := w.options("a").PinDir
	set := func(bank int) { check(t, SetBank(dir, bank)) }
	answers := func(when, want string) {
		t.Helper()
		// A SYN that is lost is sent again after a second.
		if got, err := w.dial("a1", Client{Network: "tcp", Addr: vip, Wait: 500 * time.Millisecond}); err != nil || got.Server != want {
			t.Errorf("%s: %+v, %v; want %s", when, got, err, want)
		}
	}
	edit(port, inPort)
	answers("from the beginning", "bank0")
	kept := w.mustDial("a1", Client{Network: "tcp", Addr: vip, Keep: "bank0"})

	dropped := call[Status](w.proc["a"], "Status", None{}).Counters["no-proxy"]
	stop, done := make(chan struct{}), make(chan error)
	served, client := map[string]int{}, w.proc["a1"]
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			got, err := try[Answer](client, "Dial", Client{Network: "tcp", Addr: vip, Wait: 500 * time.Millisecond})
			if err != nil {
				done <- err
				return
			}
			served[got.Server]++
		}
	}()
	for i := range 100 {
		set((i + 1) % 2)
		if i%10 == 0 { // the agent writes its own settings meanwhile
			edit(port, inPort+uint16(i))
		}
		time.Sleep(2 * time.Millisecond)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("a new connection while banks change: %v", err)
	}
	t.Logf("served by %v", served)
	if len(served) != 2 || served["bank0"] == 0 || served["bank1"] == 0 {
		t.Errorf("served by %v, want both banks", served)
	}
	if now := call[Status](w.proc["a"], "Status", None{}).Counters["no-proxy"]; now != dropped {
		t.Errorf("%d packets found no proxy", now-dropped)
	}
	var have settings
	if w.pinned("a", mapSettings, &have); have.InboundPort != inPort+90 {
		t.Errorf("the inbound port is %d, want %d", have.InboundPort, inPort+90)
	}

	set(1)
	answers("bank 1 is in use", "bank1")
	if got := call[Answer](w.proc["a1"], "Ask", "bank0"); got.Server != kept.Server {
		t.Errorf("a connection of before: %+v, was %+v", got, kept)
	}
	edit(first, inPort)
	answers("only bank 0 listens", "first")
	set(0)
	edit(second, inPort)
	answers("only bank 1 listens", "second")
	set(1)
	answers("bank 1 is in use and listens alone", "second")

	// It is the proxy's, whatever the agent does.
	w.restart("a")
	if kernel, status := w.bank("a"); kernel != 1 || status != 1 {
		t.Errorf("the next process has made bank 1 bank %d, and says %d", kernel, status)
	}
	answers("the next process", "second")
	set(0)
	if kernel, status := w.bank("a"); kernel != 0 || status != 0 {
		t.Errorf("bank 0 is bank %d, and the status says %d", kernel, status)
	}
}

func TestSetBankErrors(t *testing.T) {
	if err := SetBank(t.TempDir(), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a datapath: %v", err)
	}
	for _, bank := range []int{-1, 2} {
		if err := SetBank(t.TempDir(), bank); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("bank %d: %v", bank, err)
		}
	}
	if err := SetSlotBank(t.TempDir(), 1, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a slot without a datapath: %v", err)
	}
	for _, slot := range []int{-1, 0, Slots + 1} {
		if err := SetSlotBank(t.TempDir(), slot, 1); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("slot %d: %v", slot, err)
		}
	}
}
