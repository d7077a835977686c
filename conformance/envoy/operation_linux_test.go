// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fairlead.io/fairlead/xds"
)

// One capability is what a transparent listener needs: without it, it is rejected,
// and with it an unprivileged user will do, as in all other tests.
func TestCapability(t *testing.T) {
	for _, powerless := range []bool{true, false} {
		s := newScript(t)
		s.greet = []string{xds.ClusterType, xds.ScopeType}
		p := launch(t, setup{register: s.register, powerless: powerless})
		s.waitFor("listeners are asked for", func() bool { return s.first()[xds.ListenerType] != nil })
		detail := s.outcome(s.send(frontListener(t, "")))
		if rejected := strings.Contains(detail, "out/15100"); rejected != powerless {
			t.Errorf("powerless %v: %q", powerless, detail)
		}
		p.waitLive()
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// adminJSON reads JSON of the admin interface.
func (p *proxy) adminJSON(path string, out any) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.get(path)), out); err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
}

// What the node proxy asks Envoy on its admin socket: whether it is live and listens,
// what version it is, which listeners and route tables it has, how many connections,
// and what each endpoint has seen. None of it needs the statistics that are left out.
func TestAdmin(t *testing.T) {
	bodyServer(t, "a", hostPort(serverA, 8080))
	p, s := startScript(t, front())
	s.push(edsCluster(t, "a", "", serverA+":8080")...)
	s.push(to(t, "r~1", "a"), scopeTo(t, vip(0, 1, 80), "r~1", false))

	var info struct{ Version, State string }
	p.adminJSON("/server_info", &info)
	if parts := strings.Split(info.Version, "/"); info.State != "LIVE" || len(parts) < 2 || strings.Count(parts[1], ".") != 2 {
		t.Errorf("%+v", info)
	}
	t.Log(info.Version)
	var all struct {
		Statuses []struct{ Name string } `json:"listener_statuses"`
	}
	p.adminJSON("/listeners?format=json", &all)
	if len(all.Statuses) != 1 || all.Statuses[0].Name != "out/15100" {
		t.Errorf("listeners: %+v", all)
	}
	var dump struct {
		Configs []struct {
			Route struct{ Name string } `json:"route_config"`
		}
	}
	p.adminJSON("/config_dump?resource=dynamic_route_configs&mask=route_config.name", &dump)
	if len(dump.Configs) != 1 || dump.Configs[0].Route.Name != "r~1" {
		t.Errorf("route tables: %+v", dump)
	}
	equal(t, "listens", p.get("/stats?filter=^listener_manager\\.(workers_started|total_listeners_warming)$"),
		"listener_manager.total_listeners_warming: 0\nlistener_manager.workers_started: 1\n")

	// As the node proxy reads what endpoints have seen.
	type use struct{ Total, Active uint64 }
	seen := func() use {
		var all struct {
			Statuses []struct {
				Name  string
				Hosts []struct {
					Stats []struct {
						Name  string
						Value uint64 `json:",string"`
					}
				} `json:"host_statuses"`
			} `json:"cluster_statuses"`
		}
		p.adminJSON("/clusters?format=json", &all)
		var u use
		for _, c := range all.Statuses {
			if c.Name != "a" {
				continue
			}
			for _, s := range c.Hosts[0].Stats {
				switch s.Name {
				case "rq_total":
					u.Total += s.Value
				case "rq_active":
					u.Active += s.Value
				}
			}
		}
		return u
	}
	active := func() string {
		return p.get("/stats?filter=^listener.127.0.0.1_15100.downstream_cx_active$")
	}
	equal(t, "endpoint unused", seen(), use{})
	const stat = "listener.127.0.0.1_15100.downstream_cx_active: "
	// The statistic is there with the first connection.
	c := httpFrom(t, alpha, vip(0, 1, 80), false)
	done := make(chan error, 1)
	go func() {
		_, err := ask(c, "GET", "h", nil, "X-Wait: 500ms")
		done <- err
	}()
	p.waitFor("request under way", func() bool { return seen() == use{1, 1} })
	equal(t, "connections", active(), stat+"1\n")
	equal(t, "request", <-done, error(nil))
	equal(t, "endpoint used", seen(), use{Total: 1})
	c.CloseIdleConnections()
	p.waitFor("no connections", func() bool { return active() == stat+"0\n" })

	for _, line := range strings.Split(p.get("/stats"), "\n") {
		if strings.HasPrefix(line, "cluster.") || strings.HasPrefix(line, "vhost.") || strings.Contains(line, ".rds.") || strings.Contains(line, ".scoped_rds.") {
			t.Errorf("statistic that should be left out: %s", line)
		}
	}
	if fi, err := os.Stat(filepath.Join(p.dir, "admin.sock")); err != nil || fi.Mode()&os.ModeSocket == 0 {
		t.Errorf("admin socket: %v, %v", fi, err)
	}
}
