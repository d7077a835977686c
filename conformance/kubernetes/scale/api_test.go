// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/kubernetes/testcluster"
)

// api writes objects as fast as the API server takes them, and does not ask what is served
// for each, as kubectl would.
type api struct {
	url  string
	http *http.Client
}

// writers write at once.
const writers = 16

func newAPI(b *testing.B, c testcluster.Cluster) *api {
	b.Helper()
	var conf struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     string `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert string `json:"client-certificate-data"`
				Key  string `json:"client-key-data"`
			}
		}
	}
	text := c.Kubectl(b, "config", "view", "--raw", "--minify", "--flatten", "-o", "json")
	if err := json.Unmarshal([]byte(text), &conf); err != nil || len(conf.Clusters) != 1 || len(conf.Users) != 1 {
		b.Fatalf("read the kubeconfig: %v", err)
	}
	decode := func(s string) []byte {
		out, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			b.Fatal(err)
		}
		return out
	}
	cert, err := tls.X509KeyPair(decode(conf.Users[0].User.Cert), decode(conf.Users[0].User.Key))
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(decode(conf.Clusters[0].Cluster.CA))
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots}, MaxIdleConnsPerHost: writers + 1, MaxIdleConns: writers + 1,
	}}
	b.Cleanup(client.CloseIdleConnections)
	return &api{conf.Clusters[0].Cluster.Server, client}
}

// do sends an object, again while the server is too busy, and returns what it answers.
func (a *api) do(ctx context.Context, method, path, typ string, object any) ([]byte, error) {
	body, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	for {
		req, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", typ)
		resp, err := a.http.Do(req)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		case resp.StatusCode == http.StatusTooManyRequests:
			time.Sleep(time.Second)
		case resp.StatusCode >= 300:
			return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
		default:
			return text, nil
		}
	}
}

func (a *api) get(ctx context.Context, path string) ([]byte, error) {
	return a.do(ctx, http.MethodGet, path, "application/json", nil)
}

// create makes an object and returns its UID.
func (a *api) create(ctx context.Context, path string, object m) (uid string, err error) {
	text, err := a.do(ctx, http.MethodPost, path, "application/json", object)
	if err != nil {
		return "", err
	}
	var got struct{ Metadata struct{ UID string } }
	if err := json.Unmarshal(text, &got); err != nil || got.Metadata.UID == "" {
		return "", fmt.Errorf("create %s: what was made has no UID: %w", path, err)
	}
	return got.Metadata.UID, nil
}

func (a *api) patch(ctx context.Context, path string, patch m) error {
	_, err := a.do(ctx, http.MethodPatch, path, "application/merge-patch+json", patch)
	return err
}

// each calls f for every number below n, some at once.
func each(b *testing.B, n int, f func(i int) error) {
	b.Helper()
	next := make(chan int)
	var group sync.WaitGroup
	var once sync.Once
	var failed error
	for range writers {
		group.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					once.Do(func() { failed = err })
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	if failed != nil {
		b.Fatal(failed)
	}
}
