// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// superseded is a map of an earlier layout, which an earlier release of the programs
// reads. What it holds is brought over before the links get the new programs, which
// without it would know no pod and drop what they send.
type superseded struct {
	name, by string
	convert  func(value string) (string, error)
}

func supersededMaps() []superseded {
	return []superseded{
		{"fl_services_v1", mapServices, serviceFromV1},
		{"fl_pods_v1", mapPods, podFromV1},
		{"fl_pods_v2", mapPods, podFromV2},
		{"fl_prefixes_v1", mapPrefixes, prefixFromV1},
	}
}

// serviceV1 had one set of backends, for everyone.
type serviceV1 struct {
	ID       uint32
	Slots    uint32
	Affinity uint32
	Flags    uint32
}

func serviceFromV1(value string) (string, error) {
	var old serviceV1
	if err := decode(value, &old); err != nil {
		return "", err
	}
	return encode(serviceValue{ID: old.ID, Slots: old.Slots, Affinity: old.Affinity, Flags: old.Flags}), nil
}

// podV1 had one proxy port, for requests.
type podV1 struct {
	Set      uint64
	Ifindex  uint32
	HTTPPort uint16
	_        uint16
	Probes   [maxProbes]port
}

func podFromV1(value string) (string, error) {
	var old podV1
	if err := decode(value, &old); err != nil {
		return "", err
	}
	v := podValue{Set: old.Set, Ifindex: old.Ifindex, Probes: old.Probes}
	v.Ports[modeHTTP] = old.HTTPPort
	return encode(v), nil
}

// podV2 had eight proxy ports, and nothing about its namespace.
type podV2 struct {
	Set     uint64
	Ifindex uint32
	_       uint32
	Ports   [8]uint16
	Probes  [maxProbes]port
}

func podFromV2(value string) (string, error) {
	var old podV2
	if err := decode(value, &old); err != nil {
		return "", err
	}
	v := podValue{Set: old.Set, Ifindex: old.Ifindex, Probes: old.Probes}
	copy(v.Ports[:], old.Ports[:])
	return encode(v), nil
}

// prefixFromV1 had a class alone.
func prefixFromV1(value string) (string, error) {
	var class uint64
	if err := decode(value, &class); err != nil {
		return "", err
	}
	return encode(addressValue{Class: class}), nil
}

// bringOver copies what superseded maps in dir hold. They are the truth until dropped:
// as long as they are there, no row was written to the new ones.
func (o *objects) bringOver(dir string) error {
	for _, s := range supersededMaps() {
		if err := s.bringOver(dir, o.maps[s.by]); err != nil {
			return fmt.Errorf("bring over %s to %s: %w", s.name, s.by, err)
		}
	}
	return nil
}

func (s superseded) bringOver(dir string, to *ebpf.Map) error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, s.name), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer m.Close()
	have, err := read(m)
	if err != nil {
		return err
	}
	for key, old := range have {
		value, err := s.convert(old)
		if err != nil {
			return err
		}
		if err := to.Put([]byte(key), []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

// dropSuperseded removes the pins; no link may have a program of the earlier release
// any more.
func dropSuperseded(dir string) error {
	for _, s := range supersededMaps() {
		if err := os.Remove(filepath.Join(dir, s.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", s.name, err)
		}
	}
	return nil
}
