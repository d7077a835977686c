// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"strings"
	"testing"
	"time"
)

// What the other nodes are told follows what was applied.
func TestPulse(t *testing.T) {
	r := newRig(t, nil)
	now := time.Now()
	if s := r.pulse(now); s.Ready {
		t.Errorf("before anything was applied: %+v", s)
	}
	r.revision, r.applied = "one", "one"
	r.beginRound()
	if s := r.pulse(now); !s.Ready || s.Behind != "" || s.Revision != "one" {
		t.Errorf("when all is applied: %+v", s)
	}
	if s := r.pulse(now); s.Guards {
		t.Errorf("without the plugin: %+v", s)
	}
	r.pluginIn = "10-net.conflist"
	if s := r.pulse(now); !s.Guards {
		t.Errorf("with the plugin: %+v", s)
	}
	r.revision, r.lagging = "two", now
	r.say(aboutEnvoy, "Envoy has not acknowledged")
	if s := r.pulse(now.Add(applyLimit - time.Second)); s.Behind != "" || s.Revision != "one" {
		t.Errorf("while it is being applied: %+v", s)
	}
	if s := r.pulse(now.Add(applyLimit)); !strings.Contains(s.Behind, "Envoy has not acknowledged") {
		t.Errorf("when it takes too long: %+v", s)
	}
	r.publish(true)
	if s := r.pulse(now.Add(applyLimit)); s.Behind != "" || s.Revision != "two" {
		t.Errorf("when it is applied in the end: %+v", s)
	}
	if s := r.pulse(now.Add(time.Minute)); !strings.Contains(s.Behind, "busy") {
		t.Errorf("when the loop hangs: %+v", s)
	}
}
