// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// Image is what an archive is made of.
type Image struct {
	Name         string // with its tag: fairlead.local/lab:1
	Architecture string // as Go names it
	Files        []File
	Config       Config
}

// Config says how an image is run, as in an image's configuration.
type Config struct {
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	Env        []string `json:"Env,omitempty"`
	User       string   `json:"User,omitempty"`
}

// File is a file of the image, with one of Source and Link.
type File struct {
	Path   string // in the image, absolute
	Source string // file of this machine; that it is executable is kept
	Link   string // target of a symbolic link
}

// Media types of the parts.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Write writes an archive that is at once an OCI image layout and what "docker save"
// writes. Same files, same bytes: nothing of who made it, when or where is in it.
func (i Image) Write(w io.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	layerDigest := digest(layer)
	// Maps are encoded in the order of their keys.
	config, err := json.Marshal(map[string]any{
		"architecture": i.Architecture, "os": "linux", "config": i.Config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerDigest}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": descriptor{MediaType: configType, Digest: digest(config), Size: int64(len(config))},
		"layers": []descriptor{{MediaType: layerType, Digest: layerDigest, Size: int64(len(layer))}},
	})
	if err != nil {
		return err
	}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": indexType,
		"manifests": []descriptor{{MediaType: manifestType, Digest: digest(manifest), Size: int64(len(manifest)), Annotations: map[string]string{
			"io.containerd.image.name":          i.Name,
			"org.opencontainers.image.ref.name": i.Name[strings.LastIndex(i.Name, ":")+1:],
		}}},
	})
	if err != nil {
		return err
	}
	docker, err := json.Marshal([]map[string]any{{
		"Config": blob(config), "RepoTags": []string{i.Name}, "Layers": []string{blob(layer)},
	}})
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, e := range []struct {
		name string
		data []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{"manifest.json", docker},
		{blob(manifest), manifest},
		{blob(config), config},
		{blob(layer), layer},
	} {
		if err := t.WriteHeader(&tar.Header{Name: e.name, Typeflag: tar.TypeReg, Size: int64(len(e.data)), Mode: 0o644}); err != nil {
			return err
		}
		if _, err := t.Write(e.data); err != nil {
			return err
		}
	}
	return t.Close()
}

// layer is a tar of the files and of the folders that they are in, by path.
func (i Image) layer() ([]byte, error) {
	files := slices.Clone(i.Files)
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	// A place for temporary files is what many programs take for granted.
	made := map[string]bool{"tmp": true}
	if err := t.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
		return nil, err
	}
	for n, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return nil, fmt.Errorf("file %q: want a clean absolute path in the image", f.Path)
		}
		if n > 0 && files[n-1].Path == f.Path {
			return nil, fmt.Errorf("file %s is there twice", f.Path)
		}
		name := f.Path[1:]
		if err := folders(t, path.Dir(name), made); err != nil {
			return nil, err
		}
		if err := add(t, name, f); err != nil {
			return nil, fmt.Errorf("add %s: %w", f.Path, err)
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// folders adds a folder and those that it is in, unless they are there.
func folders(t *tar.Writer, dir string, made map[string]bool) error {
	if dir == "." || made[dir] {
		return nil
	}
	if err := folders(t, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return t.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755})
}

func add(t *tar.Writer, name string, f File) error {
	if (f.Source == "") == (f.Link == "") {
		return errors.New("want a source or a link")
	}
	if f.Link != "" {
		return t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: f.Link, Mode: 0o777})
	}
	info, err := os.Stat(f.Source)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(f.Source)
	if err != nil {
		return err
	}
	// Whatever the umask of who built it: executable or not is all that is kept.
	mode := int64(0o644)
	if info.Mode()&0o100 != 0 {
		mode = 0o755
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(data)), Mode: mode}); err != nil {
		return err
	}
	_, err = t.Write(data)
	return err
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// blob is a blob's place in the archive.
func blob(b []byte) string { return "blobs/" + strings.Replace(digest(b), ":", "/", 1) }
