// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/internal/need"
	"fairlead.io/fairlead/lab"
)

// handEnv has this binary be what the tests do in a pod.
const handEnv = "FAIRLEAD_ATTACK_HAND"

func TestMain(m *testing.M) {
	if os.Getenv(handEnv) != "" {
		s := rpc.NewServer()
		if err := s.Register(new(Hand)); err != nil {
			panic(err)
		}
		s.ServeCodec(jsonrpc.NewServerCodec(stdio{os.Stdin, os.Stdout})) // until the test closes the pipe
		return
	}
	code := m.Run()
	if err := theRig.down(); err != nil {
		println("attack:", err.Error())
		code = 1
	}
	os.Exit(code)
}

type stdio struct {
	io.ReadCloser
	io.WriteCloser
}

func (s stdio) Close() error { return errors.Join(s.ReadCloser.Close(), s.WriteCloser.Close()) }

// rig is the lab of this run, with a hand in each pod.
type rig struct {
	name string
	dir  string
	pods map[string]pod
	// services are their addresses of IPv4, then of IPv6.
	services map[string][]netip.Addr
	hands    map[string]*hand
	agents   map[string]*agent.Client // by node
	served   sync.Once
	err      error
	stop     context.CancelFunc
	ended    sync.WaitGroup
}

type pod struct {
	name, node string
	v4, v6     netip.Addr
}

func (p pod) address(six bool) netip.Addr {
	if six {
		return p.v6
	}
	return p.v4
}

var (
	theRig = &rig{name: "attack-" + strconv.Itoa(os.Getpid()), pods: map[string]pod{}, services: map[string][]netip.Addr{}, hands: map[string]*hand{}, agents: map[string]*agent.Client{}}
	once   sync.Once
)

// attacked is the lab, put up for the first test that needs it.
func attacked(t *testing.T) *rig {
	t.Helper()
	need.Root(t)
	envoy := need.Envoy(t)
	once.Do(func() { theRig.err = theRig.up(envoy) })
	if theRig.err != nil {
		t.Fatal(theRig.err)
	}
	return theRig
}

func (r *rig) up(envoy string) (err error) {
	if r.dir, err = os.MkdirTemp("", "fairlead-attack-"); err != nil {
		return err
	}
	if err := os.Chmod(r.dir, 0o755); err != nil {
		return err
	}
	bin := filepath.Join(r.dir, "fairlead")
	if out, err := exec.Command("go", "build", "-o", bin, "fairlead.io/fairlead/cmd/fairlead").CombinedOutput(); err != nil {
		return errors.New("build fairlead: " + err.Error() + "\n" + string(out))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	st, err := lab.Up(ctx, lab.Options{Name: r.name, Nodes: 2, Binary: bin, EnvoyPath: envoy, Files: []string{"testdata/world.yaml", "testdata/lair.yaml"}})
	if err != nil {
		return err
	}
	for _, n := range st.Nodes {
		c := agent.NewClient(filepath.Join(st.Run, n.Name, agent.Socket))
		r.agents[n.Name] = c
		for _, a := range n.Addresses {
			p := r.pods[n.Name]
			p.name, p.node = n.Name, n.Name
			if a.Is4() {
				p.v4 = a
			} else {
				p.v6 = a
			}
			r.pods[n.Name] = p
		}
	}
	for _, s := range st.Services {
		r.services[s.Name] = slices.SortedFunc(slices.Values(s.Addresses), netip.Addr.Compare) // IPv4 first
	}
	running, stop := context.WithCancel(context.Background())
	r.stop = stop
	for _, p := range st.Pods {
		x := pod{name: p.Name, node: p.Node}
		for _, a := range p.Addresses {
			if a.Is4() {
				x.v4 = a
			} else {
				x.v6 = a
			}
		}
		r.pods[p.Name] = x
		if r.hands[p.Name], err = r.start(running, p.Namespace+"/"+p.Name); err != nil {
			return err
		}
	}
	return nil
}

// serveSite has the site take what comes, from the first test that needs it.
func (r *rig) serveSite(t *testing.T) {
	t.Helper()
	r.served.Do(func() { call[None](t, r.hands["site"], "Serve", ":8088") })
}

// down takes the lab away.
func (r *rig) down() error {
	if r.dir == "" {
		return nil
	}
	for _, h := range r.hands {
		_ = h.Close() // the hand ends when it has no more to read
	}
	if r.stop != nil {
		r.stop()
	}
	r.ended.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := lab.Down(ctx, r.name)
	if errors.Is(err, lab.ErrNoLab) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// hand is a process in a pod, seen from the test.
type hand struct{ *rpc.Client }

func (r *rig) start(ctx context.Context, target string) (*hand, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	in, toHand := io.Pipe()
	fromHand, out := io.Pipe()
	r.ended.Go(func() {
		// It ends when it is told to.
		_, _ = lab.Exec(ctx, r.name, target, []string{"env", handEnv + "=1", exe}, lab.Stdio{In: in, Out: out, Err: os.Stderr})
		_ = errors.Join(in.Close(), out.Close()) // never fails
	})
	return &hand{jsonrpc.NewClient(stdio{fromHand, toHand})}, nil
}

func call[Reply any](t *testing.T, h *hand, method string, args any) (out Reply) {
	t.Helper()
	if err := h.Call("Hand."+method, args, &out); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return out
}

// drops is how much both nodes have dropped, by reason.
func (r *rig) drops(t *testing.T) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for _, a := range r.agents {
		st, err := a.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for reason, n := range st.Kernel.Counters {
			if datapath.Drops(reason) {
				out[reason] += n
			}
		}
	}
	return out
}

// grown names the counters that have grown; sorted.
func grown(before, after map[string]uint64) []string {
	var out []string
	for reason, n := range after {
		if n > before[reason] {
			out = append(out, reason)
		}
	}
	slices.Sort(out)
	return out
}
