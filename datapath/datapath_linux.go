// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"fairlead.io/fairlead/model/incr"
)

// Options say where a node's datapath is.
type Options struct {
	// PinDir is the folder of pinned maps and links, on a BPF file system; one a node.
	PinDir string
	// StateDir is a folder for what the node had before; it must outlive the process.
	StateDir string
	// Cgroup is the cgroup v2 folder whose processes' sockets are balanced: the
	// root, but for nodes that share a kernel.
	Cgroup string
	// Uplinks are the interfaces that lead out of the node. One of them has to be there;
	// others get their programs when they come.
	Uplinks []string
	// NetnsDir is where files of pods' network namespaces are; "" is /run/netns.
	NetnsDir string
	// SysctlDir is where settings of the network namespace of the process are written; ""
	// is /proc/sys, which in a container may be read-only.
	SysctlDir string
	// Addresses, if it is not nil, is told the addresses of the node's own interfaces, by
	// Open and whenever they have changed. It must not wait for the datapath.
	Addresses func([]netip.Addr) `json:"-"`
	// MapSizes overrides sizes of maps by name. A pinned map keeps its size.
	MapSizes map[string]uint32
	// Owner names who opens it, for others that wait for it to end; "": it has no name.
	Owner string
	// Log must not be nil.
	Log *slog.Logger
}

// Datapath is the node's kernel part. Its methods may be called concurrently.
type Datapath struct {
	opt      Options
	log      *slog.Logger
	features []Need
	lock     *os.File
	clients  clients

	mu       sync.Mutex
	objects  *objects
	links    *links
	host     *host
	pods     *pods
	rows     *rows
	settings *table
	synced   bool
	missing  map[string]string // uplinks that have no program, and why
	remote   []netip.Addr      // see SetRemote
	kernel   interfaces
	indexes  map[string]int  // of uplinks, as the kernel said last
	overlays map[int]overlay // by index

	told []netip.Addr // the node's own addresses; Open's, then run's alone

	stop  context.CancelFunc
	owned sync.WaitGroup
	wake  chan struct{}
}

// Open loads the programs and attaches those that belong to the node. It takes over
// what an earlier process left: maps with their content, and links, whose programs
// are replaced in place. It acts on the network namespace of the process, and waits
// while another process has the datapath.
//
// Call Sync next: until then no row is written and nothing is taken away. After an
// error, what was attached stays for the next Open or for Uninstall.
func Open(ctx context.Context, opt Options) (*Datapath, error) {
	if opt.NetnsDir == "" {
		opt.NetnsDir = "/run/netns"
	}
	lock, err := takeLock(ctx, opt.StateDir, opt.Owner, opt.Log)
	if err != nil {
		return nil, err
	}
	d := &Datapath{
		opt: opt, log: opt.Log, lock: lock, host: newHost(opt), missing: map[string]string{}, kernel: kernelInterfaces(), indexes: map[string]int{}, overlays: map[int]overlay{}, wake: make(chan struct{}, 1),
	}
	w, err := d.start()
	if err != nil {
		d.release()
		return nil, err
	}
	d.tellAddresses()
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	d.owned.Go(func() {
		if err := w.run(run); err != nil {
			d.log.Warn("hear of interfaces only now and then", "error", err)
		}
	})
	d.owned.Go(func() { d.run(run, w.events) })
	return d, nil
}

func (d *Datapath) start() (*watcher, error) {
	if err := makePinDir(d.opt.PinDir); err != nil {
		return nil, err
	}
	d.features = probe()
	o, err := load(d.opt.PinDir, d.opt.MapSizes)
	if err != nil {
		return nil, withLacking(err, d.features)
	}
	d.objects = o
	if err := o.bringOver(d.opt.PinDir); err != nil {
		return nil, err
	}
	d.links = &links{dir: filepath.Join(d.opt.PinDir, linkDir), objects: o, log: d.log}
	if err := d.adopt(); err != nil {
		return nil, err
	}
	if err := d.links.takeOver(); err != nil {
		return nil, err
	}
	if err := dropSuperseded(d.opt.PinDir); err != nil {
		return nil, err
	}
	lacked, err := d.host.ensure()
	if err != nil {
		return nil, fmt.Errorf("prepare host: %w", err)
	}
	if len(lacked) > 0 {
		d.log.Info("host is prepared", "changed", lacked)
	}
	for _, p := range cgroupPrograms() {
		if err := d.links.cgroupProgram(p, d.opt.Cgroup); err != nil {
			return nil, err
		}
	}
	if err := d.links.interfaceProgram(progFromNode, loopback, loopbackName); err != nil {
		return nil, err
	}
	if err := d.attachUplinks(); err != nil {
		return nil, err
	}
	return newWatcher()
}

// attachUplinks passes over those that are not there, unless none is: run attaches them
// when they come.
func (d *Datapath) attachUplinks() error {
	var missing []error
	for _, name := range d.opt.Uplinks {
		_, err := d.attachUplink(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			missing = append(missing, err)
			d.note(name, err)
		} else if err != nil {
			return err
		}
	}
	if len(missing) == len(d.opt.Uplinks) {
		return errors.Join(missing...)
	}
	return nil
}

// release gives back what the process holds. Pins hold what is in use.
func (d *Datapath) release() {
	if d.links != nil {
		d.links.close()
	}
	if d.objects != nil {
		d.objects.close()
	}
	_ = d.lock.Close() // nothing was written to it
}

// adopt reads what the maps hold.
func (d *Datapath) adopt() error {
	tables := map[string]*table{}
	for _, name := range []string{mapPolicy, mapAddresses, mapPrefixes, mapServices, mapRanges, mapSlots, mapPods, mapCaptured, mapBridges, mapSettings} {
		m := d.objects.maps[name]
		if m == nil {
			return fmt.Errorf("load BPF programs: there is no map %s", name)
		}
		have, err := read(m)
		if err != nil {
			return fmt.Errorf("take over %s: %w", name, err)
		}
		tables[name] = &table{name: name, kernel: m, max: m.MaxEntries(), have: have}
	}
	d.settings = tables[mapSettings]
	d.pods = &pods{
		table: tables[mapPods], captured: tables[mapCaptured], bridges: tables[mapBridges], links: d.links, netnsDir: d.opt.NetnsDir,
		uplinks: d.uplinks, kernel: d.kernel, log: d.log, byName: map[string]*pod{}, byAddr: map[netip.Addr]*pod{}, clients: &d.clients,
	}
	d.rows = &rows{
		policy: tables[mapPolicy], addresses: tables[mapAddresses], prefixes: tables[mapPrefixes], pods: d.pods,
		services: &services{table: tables[mapServices], slots: tables[mapSlots]},
		ranges:   tables[mapRanges],
	}
	return d.rows.services.adopt()
}

// attachUplink says whether the interface is one that had no program.
func (d *Datapath) attachUplink(name string) (isNew bool, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return false, fmt.Errorf("attach %s to %s: %w", progFromNet, name, err)
	}
	isNew = !d.links.has(pinName(progFromNet, l.Attrs().Index))
	for _, p := range []string{progFromNet, progToNet} {
		if err := d.links.interfaceProgram(p, l.Attrs().Index, name); err != nil {
			return isNew, err
		}
	}
	return isNew, nil
}

// uplinks are the indexes of those that are there, overlays with programs among them.
func (d *Datapath) uplinks() map[int]bool {
	out := d.uplinksByName(d.opt.Uplinks...)
	for i := range d.overlays {
		out[i] = true
	}
	return out
}

func (d *Datapath) uplinksByName(names ...string) map[int]bool {
	out := map[int]bool{}
	for _, name := range names {
		switch l, err := d.kernel.byName(name); {
		case err == nil:
			d.indexes[name] = l.Attrs().Index
		case !unanswered(err):
			delete(d.indexes, name)
		}
		if i := d.indexes[name]; i != 0 {
			out[i] = true
		}
	}
	return out
}

// Sync makes the kernel hold exactly these rows; rows of tables that are not the
// kernel's are passed over. What already stands there is left, so a restart with
// the same rows writes nothing. ports gives the port of a listener, 0 if it has none
// yet. After an error some rows may be missing, but none is there that points to a
// missing one; call Sync again. Where a map is full, all else is done: the error says what
// was left out, which is refused.
func (d *Datapath) Sync(ctx context.Context, rows []incr.Row, ports func(listener string) uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.rows.sync(ctx, rows, ports)
	if err == nil || errors.Is(err, ErrLeftOut) {
		d.synced = true
		d.nudge()
	}
	if err != nil {
		return fmt.Errorf("write kernel maps: %w", err)
	}
	return nil
}

// Apply writes changes of rows and nothing else, under the contract of Sync, which
// must have gone before. After an error call Sync.
//
// A pod whose interface is not there is no error: Status says that it is pending.
func (d *Datapath) Apply(ctx context.Context, changes []incr.Change, ports func(listener string) uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.synced {
		return errors.New("write kernel maps: Apply before Sync")
	}
	defer d.nudge()
	if err := d.rows.apply(ctx, changes, ports); err != nil {
		return fmt.Errorf("write kernel maps: %w", err)
	}
	return nil
}

// SetPlaces says where pods are, by their addresses; those of other pods are found. Which
// pods there are is in rows, in those that are written next.
func (d *Datapath) SetPlaces(places map[netip.Addr]Place) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pods.places = places
}

// SetInbound tells the kernel the port of the node's inbound listener, 0 for none.
func (d *Datapath) SetInbound(port uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settings.put(entry{encode(uint32(0)), encode(settings{InboundPort: port})})
}

// Stats is how many entries of each map this process wrote or deleted.
func (d *Datapath) Stats() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]uint64{}
	for _, t := range d.tables() {
		out[t.name] = t.writes
	}
	return out
}

func (d *Datapath) tables() []*table {
	return []*table{
		d.rows.policy, d.rows.addresses, d.rows.prefixes, d.rows.services.table, d.rows.services.slots, d.rows.ranges,
		d.pods.table, d.pods.captured, d.pods.bridges, d.settings,
	}
}

// Close ends this process's part. Everything stays attached and goes on forwarding.
func (d *Datapath) Close() {
	d.stop()
	d.owned.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.release()
}

// How often things are looked at again.
const (
	retryEvery = 200 * time.Millisecond // while a pod is pending
	lookEvery  = 30 * time.Second       // though nothing was heard
	settleTime = 20 * time.Millisecond  // events come in bursts
)

func (d *Datapath) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run tends pods, uplinks and the host until the context ends.
func (d *Datapath) run(ctx context.Context, events <-chan struct{}) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var retry <-chan time.Time
	for {
		var pending bool
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
			pending = d.tend(func() bool { return d.pods.anyPending() })
		case <-events:
			time.Sleep(settleTime)
			d.tellAddresses()
			pending = d.tend(d.lookAtAll)
		case <-look.C:
			d.tellAddresses()
			pending = d.tend(func() bool { d.repairHost(); return d.lookAtAll() })
		case <-retry:
			pending = d.tend(d.pods.retry)
		}
		retry = nil
		if pending {
			retry = time.After(retryEvery)
		}
	}
}

func (d *Datapath) tend(f func() bool) (pending bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.synced && f()
}

func (d *Datapath) lookAtAll() bool {
	for _, name := range d.opt.Uplinks {
		isNew, err := d.attachUplink(name)
		if err == nil && isNew {
			d.repairHost() // its settings are the defaults
		}
		d.note(name, err)
	}
	d.attachOverlays()
	return d.pods.look()
}

// Leave writes what the node had before the datapath, if the folder for it was emptied; the
// folder is there.
func (d *Datapath) Leave() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.host.leave()
}

// repairHost gives back what somebody took from the host.
func (d *Datapath) repairHost() {
	lacked, err := d.host.ensure()
	if err != nil {
		d.log.Warn("prepare host", "error", err)
	}
	if len(lacked) > 0 {
		d.log.Warn("host was changed by somebody, prepared again", "changed", lacked)
	}
}
