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

// api writes objects faster than kubectl, which spares the servers of others.
type api struct {
	url  string
	http *http.Client
}

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
	if err := json.Unmarshal([]byte(c.Kubectl(b, "config", "view", "--raw", "--minify", "--flatten", "-o", "json")), &conf); err != nil {
		b.Fatal(err)
	}
	of := func(s string) []byte {
		out, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			b.Fatal(err)
		}
		return out
	}
	cert, err := tls.X509KeyPair(of(conf.Users[0].User.Cert), of(conf.Users[0].User.Key))
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(of(conf.Clusters[0].Cluster.CA))
	return &api{conf.Clusters[0].Cluster.Server, &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots}, MaxIdleConnsPerHost: writers,
	}}}
}

// do sends an object, again while the server is too busy.
func (a *api) do(ctx context.Context, method, path, typ string, object any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	for {
		req, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", typ)
		resp, err := a.http.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		switch {
		case err != nil:
			return err
		case resp.StatusCode == http.StatusTooManyRequests:
			time.Sleep(time.Second)
		case resp.StatusCode >= 300:
			return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
		default:
			return nil
		}
	}
}

func (a *api) create(ctx context.Context, path string, object any) error {
	return a.do(ctx, http.MethodPost, path, "application/json", object)
}

func (a *api) patch(ctx context.Context, path string, patch any) error {
	return a.do(ctx, http.MethodPatch, path, "application/merge-patch+json", patch)
}

// writers write at once.
const writers = 16

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
