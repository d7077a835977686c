// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"fairlead.io/fairlead/proxy"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

// admin asks an Envoy about itself.
type admin struct {
	t      *testing.T
	client *http.Client
}

// admin is that of the node's only Envoy.
func (n *node) admin() *admin {
	return &admin{n.t, &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", proxy.PathsIn(n.dir).Admin[0])
		},
	}}}
}

func (a *admin) get(path string) []byte {
	a.t.Helper()
	resp, err := a.client.Get("http://envoy" + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		a.t.Fatalf("%s: %s %v", path, resp.Status, err)
	}
	return b
}

func (a *admin) json(path string, out any) {
	a.t.Helper()
	if err := json.Unmarshal(a.get(path), out); err != nil {
		a.t.Fatalf("%s: %v", path, err)
	}
}

// listeners are those that take connections; the one of the bootstrap keeps the scopes.
func (a *admin) listeners() []string {
	a.t.Helper()
	var all struct {
		Statuses []struct{ Name string } `json:"listener_statuses"`
	}
	a.json("/listeners?format=json", &all)
	var out []string
	for _, l := range all.Statuses {
		if l.Name != render.ScopesListener().GetName() {
			out = append(out, l.Name)
		}
	}
	return out
}

// allocated is what Envoy's allocator has given out, in bytes.
func (a *admin) allocated() int {
	a.t.Helper()
	var m struct{ Allocated string }
	a.json("/memory", &m)
	n, err := strconv.Atoi(m.Allocated)
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

// counts says how many resources of each kind Envoy holds, and statistics: something
// that is forgotten but for its statistics is not forgotten.
func (a *admin) counts() map[string]int {
	a.t.Helper()
	config := a.config()
	out := map[string]int{"stand-ins": dropStandIns(config)}
	for name := range config {
		kind, _, _ := strings.Cut(name, " ")
		out[kind]++
	}
	var stats struct{ Stats []json.RawMessage }
	a.json("/stats?format=json&histogram_buckets=none", &stats)
	out["statistics"] = len(stats.Stats)
	return out
}

// config is what Envoy holds: "kind name" -> version and content. What an Envoy's past
// has left in it, or its ports, is left out: by which of its names a table goes, and
// when a thing came.
func (a *admin) config() map[string]string {
	a.t.Helper()
	var dump struct {
		Configs []map[string]json.RawMessage
	}
	a.json("/config_dump?include_eds", &dump)
	out := map[string]string{}
	for _, section := range dump.Configs {
		for field, raw := range section {
			switch field {
			case "dynamic_active_clusters", "dynamic_warming_clusters", "dynamic_endpoint_configs", "dynamic_route_configs", "dynamic_scoped_route_configs", "dynamic_listeners":
			default:
				continue
			}
			var all []any
			if err := json.Unmarshal(raw, &all); err != nil {
				a.t.Fatalf("%s: %v", field, err)
			}
			kind := strings.TrimPrefix(field, "dynamic_")
			for _, one := range all {
				scopes, ok := one.(map[string]any)["scoped_route_configs"].([]any)
				if !ok {
					scopes = []any{one}
				}
				for _, one := range scopes {
					name, content := known(field, one)
					if name == "" { // nothing but a rejected version
						continue
					}
					out[kind+" "+name] = content
				}
			}
		}
	}
	return out
}

// dropStandIns takes out clusters that are none: of connections to services that were
// asked for by name and are gone. Envoy never forgets such a name, so the proxy keeps
// them, up to a number. It returns how many there were.
func dropStandIns(config map[string]string) int {
	dropped := 0
	for name, content := range config {
		cluster, ok := strings.CutPrefix(name, "active_clusters ")
		if !ok {
			continue
		}
		r, ok := proxy.StandIn(xds.ClusterType, cluster)
		if ok && strings.Contains(content, `"version_info":"`+r.Version) {
			dropped++
			delete(config, name)
			delete(config, "endpoint_configs "+cluster)
		}
	}
	return dropped
}

// known is a resource's name, and its content without the past.
func known(field string, one any) (name, content string) {
	forget(field, one)
	m := one.(map[string]any)
	name, _ = m["name"].(string)
	for _, inner := range []string{"cluster", "endpoint_config", "route_config", "active_state"} {
		if c, ok := m[inner].(map[string]any); ok {
			for _, key := range []string{"name", "cluster_name"} {
				if n, ok := c[key].(string); ok {
					name = n
				}
			}
		}
	}
	b, err := json.Marshal(one) // sorts keys
	if err != nil {
		panic(err) // it was JSON before
	}
	return name, string(b)
}

// forget takes the past out of a resource.
func forget(field string, v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			forget(field, e)
		}
	case map[string]any:
		delete(v, "last_updated")
		delete(v, "error_state") // of a version that was rejected
		for key, e := range v {
			s, isString := e.(string)
			switch {
			case isString && (key == "name" || key == "route_configuration_name" || key == "version_info"):
				v[key] = withoutAlias(s)
			case key == "port_value" && field == "dynamic_listeners":
				v[key] = "a port"
			case key == "version_info" && field == "dynamic_listeners":
			default:
				forget(field, e)
			}
		}
		if field == "dynamic_listeners" {
			delete(v, "version_info") // tells the port
		}
	}
}

// withoutAlias takes "~4" and "!" off a name or a version; see package serve.
func withoutAlias(s string) string {
	s = strings.TrimSuffix(s, "!")
	if i := strings.LastIndexByte(s, '~'); i >= 0 && strings.Trim(s[i+1:], "0123456789") == "" {
		return s[:i]
	}
	return s
}
