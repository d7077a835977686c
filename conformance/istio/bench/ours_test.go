// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// ours is a node of Fairlead: an agent's stages and server, and the server of its proxy.
type ours struct {
	b    *testing.B
	mesh mesh

	inputs   []objects.Input
	decoder  *objects.Decoder
	pipe     *pipeline.Pipeline
	renderer *agent.Renderer
	feed     *serve.Server // the agent's
	served   *serve.Server // the proxy's

	toProxy, toEnvoy *stream
	passing          sync.WaitGroup // what the proxy has taken and Envoy has not answered
	close            []func()
}

func newOurs(b *testing.B, m mesh) *ours {
	o := &ours{b: b, mesh: m, inputs: m.inputs()}
	o.decoder = objects.NewDecoder(o.newPipeline().Registry())
	return o
}

func (o *ours) newPipeline() *pipeline.Pipeline {
	p, err := pipeline.New(pipeline.Options{Node: node})
	if err != nil {
		o.b.Fatal(err)
	}
	return p
}

// everything takes the mesh to Envoy, by an agent and a proxy that have just started.
func (o *ours) everything() cost {
	o.end()
	o.pipe = o.newPipeline()
	decoded := o.decoder.Decode(o.inputs...)
	return measure(func() int {
		changes := o.pipe.Replace(decoded)
		var err error
		if o.renderer, err = agent.NewRenderer(); err != nil {
			o.b.Fatal(err)
		}
		o.renderer.Take(changes)
		if err := o.renderer.Errors(); err != nil {
			o.b.Fatal(err)
		}
		o.feed = serve.New(serve.Options{StandIn: proxy.StandIn}, o.renderer.All())
		o.served = serve.New(serve.Options{StandIn: proxy.StandIn}, nil)
		first := make(chan string, len(xds.Types()))
		o.toProxy = o.client(o.feed, first, o.pass)
		o.wait(first)
		o.toEnvoy = o.client(o.served, first, func(*discovery.DeltaDiscoveryResponse) {})
		o.wait(first)
		return o.sent()
	})
}

// client subscribes to all that a server has, and tells of the first answer for each type.
func (o *ours) client(s *serve.Server, first chan<- string, take func(*discovery.DeltaDiscoveryResponse)) *stream {
	answered := map[string]bool{}
	st, disconnect := connect(s.DeltaAggregatedResources, func(st *stream, r *discovery.DeltaDiscoveryResponse) {
		take(r)
		st.ack(r)
		if !answered[r.TypeUrl] {
			answered[r.TypeUrl] = true
			first <- r.TypeUrl
		}
	})
	o.close = append(o.close, disconnect)
	for _, t := range xds.Types() {
		st.request(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: node}, TypeUrl: t, ResourceNamesSubscribe: []string{"*"}})
	}
	return st
}

func (o *ours) wait(first <-chan string) {
	for range xds.Types() {
		select {
		case <-first:
		case <-time.After(time.Minute):
			o.b.Fatal("Fairlead's servers do not answer")
		}
	}
}

// pass is what a node proxy does with what comes from its agent.
func (o *ours) pass(r *discovery.DeltaDiscoveryResponse) {
	var changes []serve.Change
	for _, x := range r.Resources {
		changes = append(changes, serve.Set(xds.Resource{Type: r.TypeUrl, Name: x.Name, Version: x.Version, Body: x.Resource.Value}))
	}
	for _, n := range r.RemovedResources {
		changes = append(changes, serve.Change{Type: r.TypeUrl, Name: n})
	}
	o.passing.Add(1)
	o.served.Apply(changes, func(serve.Outcome) { o.passing.Done() })
}

// sent is what went to Envoy. As much went from agent to proxy.
func (o *ours) sent() int {
	n, _ := o.toEnvoy.count()
	return n
}

// change takes new versions of a VirtualService to Envoy, one after the other, and returns
// the cost of one.
func (o *ours) change(seconds []int) cost {
	const service = 7
	var versions []*objects.Batch
	for _, s := range seconds {
		o.inputs[service].Data = []byte(o.mesh.virtualService(service, s))
		versions = append(versions, o.decoder.Decode(o.inputs...))
	}
	return measure(func() int {
		for _, v := range versions {
			o.push(o.pipe.Replace(v))
		}
		return o.sent()
	}).per(len(versions))
}

// push takes what changed to Envoy as an agent does.
func (o *ours) push(rows []incr.Change) {
	changes := o.renderer.Take(rows)
	if len(changes) == 0 {
		o.b.Fatal("the change changes nothing")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := o.feed.Push(ctx, changes); err != nil || len(out.Rejected) > 0 {
		o.b.Fatal(fmt.Errorf("push: %v, %v", out.Rejected, err))
	}
	o.passing.Wait()
}

func (o *ours) end() {
	for _, f := range o.close {
		f()
	}
	o.close = nil
}
