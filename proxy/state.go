// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/xds"
)

// The state file is a line that names the format, the xxh3-128 of what follows,
// the length of a header (4 bytes, big-endian) and the header in JSON, and the
// resources as one delta response. The format before had no header.
const (
	stateMagic  = "fairlead proxy state 2\n"
	stateMagic1 = "fairlead proxy state 1\n"
)

// state is what the next process goes on with.
type state struct {
	resources []xds.Resource // accepted last
	inUse     []string       // route tables that Envoys had
}

type stateHeader struct {
	InUse []string `json:"inUse"`
}

// errNoState says that there is no file, as before the very first start.
var errNoState = errors.New("no saved state")

// saveState writes a state for the next process, whole or not at all.
func saveState(path string, st state) error {
	body, err := marshalState(st)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	sum := xxh3.Hash128(body).Bytes()
	if err := replaceFile(path, []byte(stateMagic), sum[:], body); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// marshalState is parseState's reverse.
func marshalState(st state) ([]byte, error) {
	m := &discovery.DeltaDiscoveryResponse{}
	for _, r := range st.resources {
		m.Resources = append(m.Resources, &discovery.Resource{
			Name: r.Name, Version: r.Version,
			Resource: &anypb.Any{TypeUrl: r.Type, Value: r.Body},
		})
	}
	header, err := json.Marshal(stateHeader{st.inUse})
	if err != nil {
		return nil, err
	}
	body := append(binary.BigEndian.AppendUint32(nil, uint32(len(header))), header...)
	return (proto.MarshalOptions{}).MarshalAppend(body, m)
}

// loadState reads what saveState wrote, now or in the format before. A file that is
// not exactly that is an error; errNoState if there is none.
func loadState(path string) (state, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, errNoState
	}
	if err != nil {
		return state{}, fmt.Errorf("load state: %w", err)
	}
	rest, ok := bytes.CutPrefix(b, []byte(stateMagic))
	old := false
	if !ok {
		rest, old = bytes.CutPrefix(b, []byte(stateMagic1))
	}
	if !ok && !old || len(rest) < 16 {
		return state{}, fmt.Errorf("load state: %s is no state file of this version", path)
	}
	body := rest[16:]
	if sum := xxh3.Hash128(body).Bytes(); !bytes.Equal(sum[:], rest[:16]) {
		return state{}, fmt.Errorf("load state: %s is damaged", path)
	}
	st, err := parseState(body, old)
	if err != nil {
		return state{}, fmt.Errorf("load state: %s: %w", path, err)
	}
	return st, nil
}

func parseState(body []byte, old bool) (state, error) {
	var header stateHeader
	if !old {
		if len(body) < 4 || uint64(len(body)-4) < uint64(binary.BigEndian.Uint32(body)) {
			return state{}, errors.New("too short for its header")
		}
		end := 4 + binary.BigEndian.Uint32(body)
		if err := json.Unmarshal(body[4:end], &header); err != nil {
			return state{}, fmt.Errorf("read header: %w", err)
		}
		body = body[end:]
	}
	var m discovery.DeltaDiscoveryResponse
	if err := proto.Unmarshal(body, &m); err != nil {
		return state{}, fmt.Errorf("read resources: %w", err)
	}
	st := state{inUse: header.InUse}
	for _, r := range m.GetResources() {
		st.resources = append(st.resources, xds.Resource{
			Type: r.GetResource().GetTypeUrl(), Name: r.GetName(),
			Version: r.GetVersion(), Body: r.GetResource().GetValue(),
		})
	}
	return st, nil
}
