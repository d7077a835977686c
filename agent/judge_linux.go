// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"strings"
	"sync"
	"time"

	"fairlead.io/fairlead/agent/blame"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// mailbox takes rejections at any time: a lazy Envoy judges a resource only when
// somebody first asks for it, minutes after the push. Safe for concurrent use.
type mailbox struct {
	mu   sync.Mutex
	in   map[resourceKey]serve.Rejection // the last of each
	wake chan struct{}
}

func newMailbox() *mailbox {
	return &mailbox{in: map[resourceKey]serve.Rejection{}, wake: make(chan struct{}, 1)}
}

// put is serve.Options.OnReject.
func (m *mailbox) put(r serve.Rejection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.in[resourceKey{r.Type, r.Name}] = r
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []serve.Rejection {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]serve.Rejection, 0, len(m.in))
	for _, r := range m.in {
		out = append(out, r)
	}
	clear(m.in)
	return out
}

// judgeLate handles rejections that came by themselves.
func (a *agent) judgeLate(ctx context.Context) {
	var late []serve.Rejection
	for _, r := range a.late.take() {
		// Of what is wanted no more nobody needs to hear.
		if want, ok := a.res.want[resourceKey{r.Type, r.Name}]; ok && want.Version == r.Version {
			late = append(late, r)
		}
	}
	late = notInUse(late, a.inCharge())
	if len(late) == 0 {
		return
	}
	a.afterRejections(ctx, late)
	a.publish(false)
}

// afterRejections says what Envoy did not take, and reports whether what comes in its
// place is in use. Its last good version serves on; but where that would leave a policy
// as it was, and the destination's node would believe that the new one was judged, a
// cluster that claims nothing takes its place.
func (a *agent) afterRejections(ctx context.Context, rejected []serve.Rejection) bool {
	var instead []serve.Change
	for _, r := range rejected {
		k := resourceKey{r.Type, r.Name}
		a.mu.Lock()
		row := a.pipe.Get(plan.Clusters, r.Name)
		a.mu.Unlock()
		s := serving(r.Type, r.Kept)
		if _, bare := a.res.bad[k]; bare && r.Type == xds.ClusterType {
			continue // the bare cluster is rejected, too: what was said of the first stands
		}
		if r.Type == xds.ClusterType {
			if c, ok := a.res.unfold(row, r.Version, r.Detail); ok {
				instead, s = append(instead, c), WithoutPolicy
			}
		}
		a.reject(k, r.Version, r.Detail, s)
	}
	return len(instead) == 0 || a.push(ctx, instead)
}

// reject makes a rejection known, once.
func (a *agent) reject(k resourceKey, version, detail string, s Serving) {
	detail = strings.TrimPrefix(detail, xds.Short(k.typ)+" "+k.name+": ") // said by the proxy on the way
	a.mu.Lock()
	defer a.mu.Unlock()
	r, news := a.rejected.add(k, version, detail, s, time.Now())
	if !news {
		return
	}
	r.Cause = blame.Find(a.pipe, k.typ, k.name, detail)
	said := "rejected by Envoy"
	if version == "" {
		said = "cannot be rendered"
	}
	args := []any{"type", r.Type, "name", r.Name, "detail", detail, "serving", s}
	for _, src := range r.Sources {
		args = append(args, "source", src.String())
	}
	a.log.Error(said, args...)
}

// noteUnusable makes known what could not be rendered, and forgets what has gone.
func (a *agent) noteUnusable() {
	for k, b := range a.res.bad {
		a.reject(k, b.version, b.why, b.serving)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.rejected {
		_, bad := a.res.bad[k]
		if _, wanted := a.res.want[k]; !bad && !wanted {
			delete(a.rejected, k)
		}
	}
}

// accepted forgets rejections of resources that Envoy has now, or has no more.
func (a *agent) accepted(changes []serve.Change, rejected []serve.Rejection) {
	still := map[resourceKey]bool{}
	for _, r := range rejected {
		still[resourceKey{r.Type, r.Name}] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range changes {
		k := resourceKey{c.Type, c.Name}
		if _, bad := a.res.bad[k]; !still[k] && !bad {
			delete(a.rejected, k)
		}
	}
}

func changesOf(all []xds.Resource) []serve.Change {
	out := make([]serve.Change, len(all))
	for i, r := range all {
		out[i] = serve.Set(r)
	}
	return out
}
