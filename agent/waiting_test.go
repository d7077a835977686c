// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds/serve"
)

// A feed that nobody answers holds the kernel up for as long as is stated, and the
// status says what is waited for, since when it is.
func TestTheKernelWaitsNoLongerThanTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, map[string]string{"node.yaml": theNode, "app.yaml": theApp})
		server := serve.New(serve.Options{StandIn: proxy.StandIn}, nil)
		r.feed = server
		r.there = false
		r.reload(t.Context()) // the first time: nobody is connected, so nobody is waited for
		if len(r.waiting) != 0 {
			t.Errorf("waits for %v", r.waits())
		}
		r.there, r.proxyOK, r.ungreeted = true, true, false
		clear(r.retry)
		server.Expect(time.Hour) // somebody is to answer, and does not
		r.write("policy.yaml", thePolicy)
		began := time.Now()
		log := r.took(r.reload)
		// What is new for Envoy is waited for; then the kernel is written all the same.
		if took := time.Since(began); took < ackLimit || took > 2*ackLimit+time.Second || !slices.Contains(lines(log), "kernel") {
			t.Errorf("took %v, did\n%s", took, log)
		}
		waits := r.waits()
		if len(waits) != 1 || waits[0].Type != "Cluster" || waits[0].Name != "shop/web:80" || !waits[0].Since.Equal(began) {
			t.Errorf("waits for %+v", waits)
		}
		if says := r.says(aboutEnvoy); !strings.Contains(says, "Cluster shop/web:80") || r.isApplied() {
			t.Errorf("problem %q, applied %v", says, r.isApplied())
		}
		time.Sleep(time.Minute)
		r.lookAfter(t.Context()) // tried again, in vain
		if again := r.waits(); len(again) != 1 || !again[0].Since.Equal(began) {
			t.Errorf("waits for %+v", again)
		}
		server.Expect(0)
		time.Sleep(time.Millisecond)
		r.feed = (*fakeFeed)(r) // which answers
		if r.lookAfter(t.Context()); len(r.waits()) != 0 || r.says(aboutEnvoy) != "" || !r.isApplied() {
			t.Errorf("waits for %+v, problem %q, applied %v", r.waits(), r.says(aboutEnvoy), r.isApplied())
		}
	})
}
