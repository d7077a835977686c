// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/xds"
)

// The state file is a line that names the format, the xxh3-128 of what follows,
// and the resources as one delta response.
const stateMagic = "fairlead proxy state 1\n"

// errNoState says that there is no file, as before the very first start.
var errNoState = errors.New("no saved state")

// saveState writes the resources for the next process, whole or not at all.
func saveState(path string, rs []xds.Resource) error {
	m := &discovery.DeltaDiscoveryResponse{}
	for _, r := range rs {
		m.Resources = append(m.Resources, &discovery.Resource{
			Name: r.Name, Version: r.Version,
			Resource: &anypb.Any{TypeUrl: r.Type, Value: r.Body},
		})
	}
	body, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	sum := xxh3.Hash128(body).Bytes()
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(bytes.Join([][]byte{[]byte(stateMagic), sum[:], body}, nil))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// loadState reads what saveState wrote. A file that is not exactly that is an
// error; errNoState if there is none.
func loadState(path string) ([]xds.Resource, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoState
	}
	if err != nil {
		return nil, fmt.Errorf("load state: %w", err)
	}
	rest, ok := bytes.CutPrefix(b, []byte(stateMagic))
	if !ok || len(rest) < 16 {
		return nil, fmt.Errorf("load state: %s is no state file of this version", path)
	}
	body := rest[16:]
	if sum := xxh3.Hash128(body).Bytes(); !bytes.Equal(sum[:], rest[:16]) {
		return nil, fmt.Errorf("load state: %s is damaged", path)
	}
	var m discovery.DeltaDiscoveryResponse
	if err := proto.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("load state: %w", err)
	}
	var rs []xds.Resource
	for _, r := range m.GetResources() {
		rs = append(rs, xds.Resource{
			Type: r.GetResource().GetTypeUrl(), Name: r.GetName(),
			Version: r.GetVersion(), Body: r.GetResource().GetValue(),
		})
	}
	return rs, nil
}
