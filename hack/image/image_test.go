// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// files are a program, a text and a link, with mode and time as they happen to be.
func files(t *testing.T, mode os.FileMode, when time.Time) []File {
	t.Helper()
	dir := t.TempDir()
	program, text := filepath.Join(dir, "program"), filepath.Join(dir, "text")
	for name, m := range map[string]os.FileMode{program: mode, text: 0o600} {
		if err := os.WriteFile(name, []byte(filepath.Base(name)), m); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
	}
	return []File{{Path: "/etc/deep/text", Source: text}, {Path: "/bin/program", Source: program}, {Path: "/bin/other", Link: "program"}}
}

func archive(t *testing.T, f []File) []byte {
	t.Helper()
	var out bytes.Buffer
	i := Image{Name: "fairlead.local/x:1", Architecture: "amd64", Files: f, Config: Config{Entrypoint: []string{"/bin/program"}}}
	if err := i.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSameFilesSameBytes(t *testing.T) {
	a := files(t, 0o700, time.Now())
	b := files(t, 0o755, time.Unix(1, 0))
	slices.Reverse(b)
	if !bytes.Equal(archive(t, a), archive(t, b)) {
		t.Error("order, times or permissions of the builder's machine are in the archive")
	}
}

// contents reads a tar: by name, what is in it or where it leads.
func contents(t *testing.T, archive []byte) (names []string, data map[string]string, modes map[string]int64) {
	t.Helper()
	data, modes = map[string]string{}, map[string]int64{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names, data, modes
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		data[h.Name], modes[h.Name] = string(b)+h.Linkname, h.Mode
	}
}

// Both ways into the archive, Docker's and OCI's, lead to the same blobs, each named by
// its digest.
func TestArchiveIsWhole(t *testing.T) {
	_, data, _ := contents(t, archive(t, files(t, 0o755, time.Now())))
	for name, b := range data {
		if strings.HasPrefix(name, "blobs/") && blob([]byte(b)) != name {
			t.Errorf("%s has another digest", name)
		}
	}
	at := func(digest string) string { return data["blobs/"+strings.Replace(digest, ":", "/", 1)] }
	var docker []struct {
		Config           string
		RepoTags, Layers []string
	}
	decode(t, data["manifest.json"], &docker)
	if len(docker) != 1 || len(docker[0].Layers) != 1 || docker[0].RepoTags[0] != "fairlead.local/x:1" {
		t.Fatalf("manifest.json: %s", data["manifest.json"])
	}
	var index struct{ Manifests []descriptor }
	decode(t, data["index.json"], &index)
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, at(index.Manifests[0].Digest), &manifest)
	if at(manifest.Config.Digest) != data[docker[0].Config] || at(manifest.Layers[0].Digest) != data[docker[0].Layers[0]] {
		t.Error("the two manifests lead to different blobs")
	}
	if n := int64(len(at(manifest.Layers[0].Digest))); n == 0 || n != manifest.Layers[0].Size {
		t.Errorf("layer has %d bytes, %d in the manifest", n, manifest.Layers[0].Size)
	}
	var config struct {
		Architecture, OS string
		Config           Config
		RootFS           struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	decode(t, at(manifest.Config.Digest), &config)
	if config.OS != "linux" || config.Architecture != "amd64" || config.Config.Entrypoint[0] != "/bin/program" || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("config: %+v", config)
	}

	names, layer, modes := contents(t, []byte(at(manifest.Layers[0].Digest)))
	want := []string{"tmp/", "bin/", "bin/other", "bin/program", "etc/", "etc/deep/", "etc/deep/text"}
	if !slices.Equal(names, want) {
		t.Errorf("layer has %v, want %v", names, want)
	}
	if layer["bin/program"] != "program" || layer["bin/other"] != "program" || modes["bin/program"] != 0o755 || modes["etc/deep/text"] != 0o644 {
		t.Errorf("layer: %v %v", layer, modes)
	}
}

func decode(t *testing.T, b string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(b), into); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
}

func TestMistakes(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no path":       {[]string{"file"}, "want SOURCE=/PATH"},
		"relative path": {[]string{missing + "=bin/x"}, "clean absolute path"},
		"unclean path":  {[]string{missing + "=/bin/../x"}, "clean absolute path"},
		"no source":     {[]string{missing + "=/bin/x"}, "no such file"},
		"twice":         {[]string{"link:a=/bin/x", "link:b=/bin/x"}, "twice"},
		"nothing":       {nil, "help"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "x.tar")
			err := run(append([]string{"-o", out, "-name", "x:1"}, c.args...), io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, _ := filepath.Glob(out + "*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
