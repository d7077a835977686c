// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"fairlead.io/fairlead/agent/blame"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// ownLimit is how long the kernel, and so everybody, waits for the proxy of a namespace to
// acknowledge a change. One that did not is not waited for again until it has.
const ownLimit = time.Second

// ownAgain is after how long it is sent all again.
const ownAgain = time.Second

// ownProxies are those that namespaces have of their own. They belong to the goroutine of
// loop, but for what status reads.
//
// Each has a feed of its own. It is level-based: what a proxy is to have is sent whole, in
// a goroutine of its own, and what it has already costs nothing. So one that hangs holds
// up nobody else's.
type ownProxies struct {
	by    map[string]*ownProxy
	tasks sync.WaitGroup
	saved []proxy.Own
	said  bool // saved is what the file has
}

type ownProxy struct {
	proxy.Own
	dir    string
	server *serve.Server
	late   *mailbox
	end    context.CancelFunc // of its feed

	wanted  bool                         // some pod of the node is to have it
	dirty   bool                         // what it is to have may not be what was sent last
	unheard bool                         // it did not answer in time; nobody waits for it
	has     map[resourceKey]kept         // what it alone has, or had until a moment ago
	answer  chan ownAnswer               // of what is under way; nil: nothing is
	sent    map[resourceKey]xds.Resource // what that is, of its own
	until   time.Time                    // when it may end, if it is not wanted
	again   time.Time                    // when it is sent to again that did not answer

	// lagging is since when there is something new that it has not acknowledged; zero: it has
	// all. The agent's mu guards it, as it does why and rejected.
	lagging  time.Time
	said     said
	why      string // it has not acknowledged everything
	rejected rejections
}

// kept is a resource of a namespace's proxy, and until when it is kept though nobody wants
// it; zero: it is wanted.
type kept struct {
	res xds.Resource
	due time.Time
}

type ownAnswer struct {
	out serve.Outcome
	err error
}

// bringOwn makes the namespaces' proxies those of the plan, and gives them what they are to
// have by now. It waits a moment for those that are well.
func (a *agent) bringOwn(ctx context.Context) {
	a.makeOwn(ctx)
	limited, cancel := context.WithTimeout(ctx, ownLimit)
	defer cancel()
	for _, o := range a.own.all() {
		o.dirty = true
		a.mu.Lock()
		if o.lagging.IsZero() {
			o.lagging = time.Now()
		}
		a.mu.Unlock()
		a.sendOwn(ctx, o)
	}
	for _, o := range a.own.all() {
		if o.answer == nil || o.unheard {
			continue
		}
		select {
		case answer := <-o.answer:
			a.ownAnswered(o, answer)
		case <-limited.Done():
			o.unheard = true
			a.explainOwn(o, fmt.Sprintf("it has not acknowledged what is new within %v, and nobody waits for it", ownLimit))
		}
	}
}

// lookAfterOwn brings on what is not done yet. It waits for nobody.
func (a *agent) lookAfterOwn(ctx context.Context) {
	now := time.Now()
	for _, o := range a.own.all() {
		select {
		case answer := <-o.answer:
			if a.ownAnswered(o, answer) {
				a.rewrite()
			}
		default:
		}
		a.judgeOwn(o)
		for _, g := range o.has {
			if !g.due.IsZero() && now.After(g.due) && o.wanted {
				o.dirty = true
			}
		}
		if o.dirty && now.After(o.again) {
			a.sendOwn(ctx, o)
		}
		if !o.wanted && now.After(o.until) && a.mayEnd(o) {
			a.endOwn(o)
		}
	}
}

func (p *ownProxies) all() []*ownProxy {
	return slices.SortedFunc(maps.Values(p.by), func(a, b *ownProxy) int { return a.Slot - b.Slot })
}

// makeOwn starts the feeds of proxies that are new, and says which proxies there are.
func (a *agent) makeOwn(ctx context.Context) {
	wanted := map[string]*plan.Proxy{}
	for _, r := range a.rows([]incr.Table{plan.Proxies}) {
		wanted[r.Key] = r.Value.(*plan.Proxy)
	}
	problem := ""
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		slot, err := a.ports.allocateSlot(name)
		if err != nil {
			problem = err.Error()
			continue
		}
		o := a.own.by[name]
		if o == nil {
			if o, err = a.startOwn(ctx, proxy.Own{Name: name, Slot: slot}); err != nil {
				problem = err.Error()
				continue
			}
			a.mu.Lock()
			a.own.by[name] = o
			a.mu.Unlock()
		}
		a.mu.Lock()
		o.wanted, o.Memory = true, wanted[name].Memory
		a.mu.Unlock()
	}
	for name, o := range a.own.by {
		if wanted[name] == nil && o.wanted {
			o.wanted, o.until = false, time.Now().Add(linger)
		}
	}
	for name := range a.ports.state.Slots { // an earlier agent's
		if wanted[name] == nil && a.own.by[name] == nil {
			a.ports.releaseSlot(name)
		}
	}
	a.say(aboutOwn, problem)
	a.saveOwn()
}

// saveOwn tells the node proxy which there are. The slots are saved before: no two
// namespaces' are ever the same.
func (a *agent) saveOwn() {
	a.savePorts()
	var all []proxy.Own
	for _, o := range a.own.all() {
		all = append(all, o.Own)
	}
	if !a.own.said {
		saved, err := proxy.LoadOwn(a.opts.RunDir) // an earlier agent's
		a.own.saved, a.own.said = saved, err == nil
	}
	if a.own.said && slices.Equal(all, a.own.saved) {
		return
	}
	problem := ""
	if err := proxy.SaveOwn(a.opts.RunDir, all); err != nil {
		problem = err.Error()
	} else {
		a.own.saved, a.own.said = all, true
	}
	a.say(aboutOwnFile, problem)
}

// startOwn serves the feed and the access log of a proxy, when it has everything.
func (a *agent) startOwn(ctx context.Context, own proxy.Own) (*ownProxy, error) {
	o := &ownProxy{Own: own, dir: own.Dir(a.opts.RunDir), late: newMailbox(), has: map[resourceKey]kept{}, rejected: rejections{}}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make run folder of namespace %s's proxy: %w", own.Name, err)
	}
	o.server = serve.New(serve.Options{StandIn: proxy.StandIn, Client: proxy.FeedName, OnReject: o.late.put, OnContest: o.late.put}, a.res.of(own.Name))
	ctx, o.end = context.WithCancel(ctx)
	uid := -1
	if os.Geteuid() == 0 {
		uid = own.UID()
	}
	p := proxy.PathsIn(o.dir)
	a.serveOwn(ctx, own.Name, p.Feed, -1, o.server.Register)
	a.serveOwn(ctx, own.Name, p.AccessLog, uid, a.alog.Register)
	return o, nil
}

// serveOwn serves on a socket until ctx ends, whatever comes in between: a namespace's
// trouble does not end the agent.
func (a *agent) serveOwn(ctx context.Context, name, path string, uid int, register func(*grpc.Server)) {
	a.own.tasks.Go(func() {
		for ctx.Err() == nil {
			if err := serveGRPC(ctx, path, uid, register); err != nil {
				a.log.Error("a socket of a namespace's proxy is not served, and is tried again", "proxy", name, "error", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
}

// sendOwn sends a proxy what it is to have, unless something is under way.
func (a *agent) sendOwn(ctx context.Context, o *ownProxy) {
	if o.answer != nil || !o.wanted {
		return
	}
	now := time.Now()
	for k, g := range o.has {
		if _, wanted := a.res.own[o.Name][k]; !wanted && g.due.IsZero() {
			o.has[k] = kept{g.res, now.Add(linger)}
		} else if !wanted && now.After(g.due) {
			delete(o.has, k)
		}
	}
	all := a.res.of(o.Name)
	for k, res := range a.res.own[o.Name] {
		o.has[k] = kept{res: res}
	}
	for _, g := range o.has {
		if !g.due.IsZero() {
			all = append(all, g.res)
		}
	}
	o.dirty, o.sent, o.answer = false, maps.Clone(a.res.own[o.Name]), make(chan ownAnswer, 1)
	answer := o.answer
	a.own.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, ackLimit)
		defer cancel()
		out, err := o.server.Sync(ctx, all)
		if err == nil {
			s, asked := proxy.ReadStatus(ctx, o.dir)
			switch {
			case asked != nil:
				err = asked
			case out.Clients == 0 || !s.Envoy.Connected || !s.Feed.Connected:
				err = errNoEnvoy
			}
		}
		answer <- ownAnswer{out, err}
	})
}

// ownAnswered takes what a proxy has answered: the kernel may send to listeners that it has.
// It reports whether there are new ones.
func (a *agent) ownAnswered(o *ownProxy, answer ownAnswer) (news bool) {
	o.answer = nil
	if answer.err != nil {
		if !errors.Is(answer.err, context.Canceled) {
			a.explainOwn(o, answer.err.Error())
		}
		o.dirty, o.unheard, o.again = true, true, time.Now().Add(ownAgain)
		return false
	}
	o.unheard = false
	a.explainOwn(o, "")
	if !o.dirty { // nothing has changed since that was sent
		a.mu.Lock()
		o.lagging = time.Time{}
		a.mu.Unlock()
	}
	rejected := notInUse(answer.out.Rejected, proxy.InCharge(o.dir))
	for k := range o.sent {
		if k.typ == xds.ListenerType {
			was := a.ports.live(k.name)
			a.goLive(k.name, rejected)
			news = news || a.ports.live(k.name) != was
		}
	}
	a.rejectOwn(o, rejected)
	return news
}

// judgeOwn handles rejections that came by themselves.
func (a *agent) judgeOwn(o *ownProxy) {
	late := o.late.take()
	if len(late) > 0 {
		a.rejectOwn(o, notInUse(late, proxy.InCharge(o.dir)))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, r := range o.rejected {
		if want, ok := a.wantedBy(o, k); !ok || want.Version != r.Version {
			delete(o.rejected, k)
		}
	}
}

func (a *agent) wantedBy(o *ownProxy, k resourceKey) (xds.Resource, bool) {
	if res, ok := a.res.own[o.Name][k]; ok {
		return res, true
	}
	res, ok := a.res.want[k]
	return res, ok && ofClients(k)
}

// rejectOwn makes known what a namespace's proxy did not take. A cluster whose policy it
// does not take claims nothing for anybody: see afterRejections.
func (a *agent) rejectOwn(o *ownProxy, rejected []serve.Rejection) {
	for _, r := range rejected {
		k := resourceKey{r.Type, r.Name}
		if want, ok := a.wantedBy(o, k); !ok || want.Version != r.Version {
			continue
		}
		a.mu.Lock()
		row := a.pipe.Get(plan.Clusters, r.Name)
		a.mu.Unlock()
		s := serving(r.Type, r.Kept)
		if r.Type == xds.ClusterType {
			if c, ok := a.res.unfold(row, r.Version, r.Detail); ok {
				a.retry[k] = c
				o.dirty, s = true, WithoutPolicy
			}
		}
		a.mu.Lock()
		if said, news := o.rejected.add(k, r.Version, r.Detail, s, time.Now()); news {
			said.Cause = blame.Find(a.pipe, k.typ, k.name, r.Detail)
			a.log.Error("rejected by a namespace's Envoy", "proxy", o.Name, "type", said.Type, "name", r.Name, "detail", r.Detail, "serving", s)
		}
		a.mu.Unlock()
	}
}

// explainOwn says why a proxy is not as wanted, once for as long as it lasts.
func (a *agent) explainOwn(o *ownProxy, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if why != "" && why != o.why {
		a.log.Warn("a namespace's proxy is not as wanted", "proxy", o.Name, "problem", why)
	}
	o.why = why
}

// ownLive reports whether the kernel may send all to a namespace's proxy that is to have it.
func (a *agent) ownLive(name string) bool {
	for k := range a.res.own[name] {
		if k.typ == xds.ListenerType && !a.ports.live(k.name) {
			return false
		}
	}
	return true
}

// mayEnd reports whether nothing is sent to a proxy that nobody wants: what the node's has
// in place of its listeners takes connections.
func (a *agent) mayEnd(o *ownProxy) bool {
	if a.resync || len(a.retry) > 0 {
		return false
	}
	for k := range o.has {
		shared, _ := plan.SharedName(k.name)
		if _, wanted := a.res.want[resourceKey{xds.ListenerType, shared}]; k.typ == xds.ListenerType && wanted && !a.ports.live(shared) {
			return false
		}
	}
	return true
}

// endOwn has the node proxy end a proxy: it lets its connections finish.
func (a *agent) endOwn(o *ownProxy) {
	a.log.Info("a namespace's proxy ends", "proxy", o.Name)
	a.mu.Lock()
	delete(a.own.by, o.Name)
	a.mu.Unlock()
	o.end()
	for k := range o.has {
		if k.typ == xds.ListenerType {
			a.ports.release(k.name)
		}
	}
	a.ports.releaseSlot(o.Name)
	a.saveOwn()
}

// ownHolds reports whether a namespace's proxy has a listener, or had it until a moment ago.
func (a *agent) ownHolds(k resourceKey) bool {
	_, proxy := plan.SharedName(k.name)
	o := a.own.by[proxy]
	if o == nil {
		return false
	}
	_, has := o.has[k]
	return has
}

// substitute is a listener for the same clients in another proxy, to which the kernel sends
// while the one that it should send to is not ready; "" if there is none.
func (a *agent) substitute(listener string) string {
	shared, proxy := plan.SharedName(listener)
	if proxy != "" {
		return shared
	}
	if listener == plan.InboundListener {
		return "" // those of namespaces take what is for these
	}
	for _, name := range slices.Sorted(maps.Keys(a.ports.state.Live)) {
		if s, _ := plan.SharedName(name); s == listener && name != listener {
			return name
		}
	}
	return ""
}

// ownStatusLimit is how long a status waits for namespaces' proxies: one whose Envoy hangs
// takes longer to say so, and then what it said last stands.
const ownStatusLimit = 250 * time.Millisecond

// ownStatus asks them all at once.
func (a *agent) ownStatus() []OwnStatus {
	a.mu.Lock()
	all := a.own.all()
	out := make([]OwnStatus, len(all))
	for i, o := range all {
		out[i] = OwnStatus{Namespace: o.Name, Slot: o.Slot, UID: o.UID(), Memory: o.Memory, Problem: o.why, Rejected: o.rejected.list(nil)}
	}
	a.mu.Unlock()
	limit := time.After(ownStatusLimit)
	asked := make([]chan struct{}, len(all))
	for i, o := range all {
		asked[i] = o.ask()
	}
	for i, o := range all {
		select {
		case <-asked[i]:
		case <-limit:
			limit = closedTime
			out[i].ProxyError = "it does not answer at once; this is what it said last"
		}
		o.said.Lock()
		out[i].Proxy = o.said.last
		if o.said.err != nil {
			out[i].ProxyError = o.said.err.Error()
		}
		o.said.Unlock()
	}
	return out
}

// closedTime has always come.
var closedTime = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// said is what a proxy has said of itself.
type said struct {
	sync.Mutex
	last  *proxy.Status
	err   error
	asked chan struct{} // nil: nobody asks; else closed with the answer
}

// ask begins to ask for the proxy's status, unless somebody does so.
func (o *ownProxy) ask() chan struct{} {
	o.said.Lock()
	defer o.said.Unlock()
	if o.said.asked != nil {
		return o.said.asked
	}
	done := make(chan struct{})
	o.said.asked = done
	go func() { // ends by its limit
		ctx, cancel := context.WithTimeout(context.Background(), statusLimit)
		defer cancel()
		s, err := proxy.ReadStatus(ctx, o.dir)
		o.said.Lock()
		defer o.said.Unlock()
		if o.said.err = err; err == nil {
			o.said.last = &s
		}
		o.said.asked = nil
		close(done)
	}()
	return done
}

// ownBehindLocked is the first namespace whose proxy may judge by what is no longer
// configured, "" if there is none. It is called with mu held.
func (a *agent) ownBehindLocked(now time.Time) string {
	for _, o := range a.own.all() {
		if !o.lagging.IsZero() && now.Sub(o.lagging) >= applyLimit {
			return o.Name
		}
	}
	return ""
}
