// SPDX-License-Identifier: Apache-2.0

// image makes a container image of static programs and files, without a container
// engine: an archive that docker, podman, skopeo and "ctr images import" read.
//
//	image -o lab.tar -name fairlead.local/lab:1 -entrypoint /bin/lab bin/lab=/bin/lab link:lab=/bin/load
//
// The same files give the same bytes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

func main() {
	err := run(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string, stderr io.Writer) error {
	var i Image
	fs := flag.NewFlagSet("image", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprintln(stderr, "image -o FILE -name NAME:TAG [options] SOURCE=/PATH... link:TARGET=/PATH...")
		fs.PrintDefaults()
	}
	out := fs.String("o", "", "archive to write")
	fs.StringVar(&i.Name, "name", "", "name and tag, `NAME:TAG`")
	fs.StringVar(&i.Architecture, "arch", runtime.GOARCH, "architecture of the programs")
	words := func(name, what string, to *[]string) {
		fs.Func(name, what+"; repeat for more `WORD`s", func(v string) error { *to = append(*to, v); return nil })
	}
	words("entrypoint", "program to run", &i.Config.Entrypoint)
	words("cmd", "arguments, where who runs it gives none", &i.Config.Cmd)
	words("env", "NAME=VALUE of the environment", &i.Config.Env)
	fs.StringVar(&i.Config.User, "user", "", "`user` to run as (default root)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	repository, tag, _ := strings.Cut(i.Name[strings.LastIndex(i.Name, "/")+1:], ":")
	if *out == "" || repository == "" || tag == "" || fs.NArg() == 0 {
		fs.Usage()
		return flag.ErrHelp
	}
	if i.Config.Env == nil {
		i.Config.Env = []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin"}
	}
	for _, arg := range fs.Args() {
		source, path, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%s: want SOURCE=/PATH or link:TARGET=/PATH", arg)
		}
		if target, ok := strings.CutPrefix(source, "link:"); ok {
			i.Files = append(i.Files, File{Path: path, Link: target})
		} else {
			i.Files = append(i.Files, File{Path: path, Source: source})
		}
	}
	return write(i, *out)
}

// write writes the archive beside its place first: who reads it finds all or nothing.
func write(i Image, out string) error {
	f, err := os.CreateTemp(filepath.Dir(out), filepath.Base(out)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // renamed already, if all went well
	if err := i.Write(f); err != nil {
		f.Close()
		return fmt.Errorf("write image %s: %w", i.Name, err)
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}
