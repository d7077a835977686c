// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// admin asks an Envoy by its admin socket.
type admin struct{ client *http.Client }

func newAdmin(socket string) *admin { return &admin{overUnix(socket)} }

// overUnix is a client whose requests all go to a unix socket.
func overUnix(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

func (a *admin) do(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask envoy: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("ask envoy: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask envoy for %s: %s", path, resp.Status)
	}
	return b, nil
}

func (a *admin) post(ctx context.Context, path string) error {
	_, err := a.do(ctx, http.MethodPost, path)
	return err
}

func (a *admin) getJSON(ctx context.Context, path string, out any) error {
	b, err := a.do(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("read envoy's answer to %s: %w", path, err)
	}
	return nil
}

// stats are the counters and gauges whose names match an expression.
func (a *admin) stats(ctx context.Context, expression string) (map[string]uint64, error) {
	b, err := a.do(ctx, http.MethodGet, "/stats?filter="+expression)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		if out[name], err = strconv.ParseUint(value, 10, 64); err != nil {
			return nil, fmt.Errorf("read envoy's statistics: %w", err)
		}
	}
	return out, lines.Err()
}

// connections is how many connections of clients are open.
func (a *admin) connections(ctx context.Context) (uint64, error) {
	all, err := a.stats(ctx, `^listener\..*\.downstream_cx_active$`)
	var sum uint64
	for name, n := range all {
		if !strings.HasPrefix(name, "listener.admin.") && !strings.Contains(name, ".worker_") {
			sum += n
		}
	}
	return sum, err
}

// serverInfo is what we read of Envoy's own.
type serverInfo struct {
	Version string `json:"version"`
	State   string `json:"state"`
}

// info asks Envoy who it is.
func (a *admin) info(ctx context.Context) (serverInfo, error) {
	var info serverInfo
	if err := a.getJSON(ctx, "/server_info", &info); err != nil {
		return info, err
	}
	// "<commit>/1.40.0/Clean/RELEASE/BoringSSL"
	if parts := strings.Split(info.Version, "/"); len(parts) > 1 {
		info.Version = parts[1]
	}
	return info, nil
}

// listeners are the names of those that take connections.
func (a *admin) listeners(ctx context.Context) (map[string]bool, error) {
	var all struct {
		Statuses []struct{ Name string } `json:"listener_statuses"`
	}
	if err := a.getJSON(ctx, "/listeners?format=json", &all); err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, l := range all.Statuses {
		out[l.Name] = true
	}
	return out, nil
}

// routeTables are the names of the route tables that Envoy has.
func (a *admin) routeTables(ctx context.Context) (map[string]bool, error) {
	var dump struct {
		Configs []struct {
			Route struct{ Name string } `json:"route_config"`
		}
	}
	if err := a.getJSON(ctx, "/config_dump?resource=dynamic_route_configs&mask=route_config.name", &dump); err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, c := range dump.Configs {
		out[c.Route.Name] = true
	}
	return out, nil
}

// use is what the endpoints of a cluster have seen since Envoy's start.
type use struct {
	total  uint64 // requests and connections
	active bool   // some requests are not over
}

// usage is use by cluster and endpoint.
type usage map[string]map[string]use

// usage asks for the use of all endpoints.
func (a *admin) usage(ctx context.Context) (usage, error) {
	var all struct {
		Statuses []struct {
			Name  string
			Hosts []struct {
				Address json.RawMessage
				Stats   []struct {
					Name  string
					Value uint64 `json:",string"`
				}
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := a.getJSON(ctx, "/clusters?format=json", &all); err != nil {
		return nil, err
	}
	out := make(usage, len(all.Statuses))
	for _, c := range all.Statuses {
		hosts := make(map[string]use, len(c.Hosts))
		for _, h := range c.Hosts {
			var u use
			for _, s := range h.Stats {
				switch s.Name {
				case "rq_total", "cx_total":
					u.total += s.Value
				case "rq_active", "rq_pending_active": // not cx_active: it counts idle ones
					u.active = u.active || s.Value > 0
				}
			}
			hosts[string(h.Address)] = u
		}
		out[c.Name] = hosts
	}
	return out, nil
}
