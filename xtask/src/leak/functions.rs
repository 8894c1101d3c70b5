//! The functions of a program, and which features of a processor their instructions ask for.

use std::collections::BTreeMap;
use std::path::Path;

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use object::{Architecture, Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::features;
use super::origin::{self, Origin};
use crate::error::Error;

/// A function as it was compiled.
pub(super) struct Function {
    /// Its path, demangled.
    pub(super) name: String,
    /// Where it comes from.
    pub(super) origin: Origin,
    /// Its address.
    pub(super) start: u64,
    /// How many instructions it has.
    pub(super) instructions: u64,
    /// The features that not every x86-64 processor has, each with the first instruction that asks.
    pub(super) features: BTreeMap<CpuidFeature, String>,
    /// The addresses that it calls or jumps to.
    pub(super) calls: Vec<u64>,
}

/// Every function of a program that is checked.
pub(super) fn read(program: &Path) -> Result<Vec<Function>, Error> {
    let bytes = std::fs::read(program).map_err(|source| Error::Io {
        path: program.to_path_buf(),
        source,
    })?;
    let wrong = |expected: String| Error::Form {
        origin: program.display().to_string(),
        expected,
    };
    let file = object::File::parse(&*bytes).map_err(|error| wrong(error.to_string()))?;
    if file.architecture() != Architecture::X86_64 {
        return Err(wrong(format!(
            "it should be for x86-64, but it is for {:?}",
            file.architecture()
        )));
    }
    let mut functions = Vec::new();
    for symbol in file.symbols() {
        if symbol.kind() != SymbolKind::Text || symbol.size() == 0 {
            continue;
        }
        let mangled = symbol.name().map_err(|error| wrong(error.to_string()))?;
        let name = format!("{:#}", rustc_demangle::demangle(mangled));
        let Some(origin) = origin::of(&name) else {
            continue;
        };
        let code = symbol
            .section_index()
            .and_then(|index| file.section_by_index(index).ok())
            .and_then(|section| {
                section
                    .data_range(symbol.address(), symbol.size())
                    .ok()
                    .flatten()
            })
            .ok_or_else(|| wrong(format!("`{name}` should lie within a section")))?;
        functions.push(disassemble(name, origin, symbol.address(), code).map_err(wrong)?);
    }
    if functions.is_empty() {
        return Err(wrong(
            "it should have symbols of functions of the kernels in Rust's v0 form, but has none"
                .to_owned(),
        ));
    }
    Ok(functions)
}

fn disassemble(name: String, origin: Origin, start: u64, code: &[u8]) -> Result<Function, String> {
    let mut function = Function {
        name,
        origin,
        start,
        instructions: 0,
        features: BTreeMap::new(),
        calls: Vec::new(),
    };
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return Err(format!(
                "`{}` should be code, but at {:#x} is none",
                function.name,
                instruction.ip()
            ));
        }
        function.instructions += 1;
        // `tzcnt` is `bsf` with a prefix that older processors ignore: compilers use it on all of
        // them where the operand is not zero.
        let everywhere = instruction.mnemonic() == Mnemonic::Tzcnt;
        for &feature in instruction.cpuid_features() {
            if !everywhere && !features::is_baseline(feature) {
                function
                    .features
                    .entry(feature)
                    .or_insert_with(|| format!("{:?}", instruction.code()));
            }
        }
        if matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::UnconditionalBranch
        ) {
            let target = instruction.near_branch_target();
            let inside = (start..start + code.len() as u64).contains(&target);
            if target != 0 && !inside {
                function.calls.push(target);
            }
        }
    }
    Ok(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(code: &[u8]) -> Result<Function, String> {
        disassemble("f".to_owned(), Origin::Outside, 0x1000, code)
    }

    #[test]
    fn instructions_ask_for_their_features() {
        // vpaddd ymm0, ymm0, ymm1; ret
        let found = function(&[0xc5, 0xfd, 0xfe, 0xc1, 0xc3]).unwrap();
        assert_eq!(found.instructions, 2);
        assert_eq!(
            found.features.keys().copied().collect::<Vec<_>>(),
            [CpuidFeature::AVX2]
        );
        // vpdpbusd zmm0, zmm0, zmm1
        let found = function(&[0x62, 0xf2, 0x7d, 0x48, 0x50, 0xc1]).unwrap();
        assert!(found.features.contains_key(&CpuidFeature::AVX512_VNNI));
        // lzcnt eax, ecx differs from `bsr` with a prefix; tzcnt does not from `bsf`.
        let found = function(&[0xf3, 0x0f, 0xbd, 0xc1, 0xf3, 0x0f, 0xbc, 0xc1]).unwrap();
        assert_eq!(
            found.features.keys().copied().collect::<Vec<_>>(),
            [CpuidFeature::LZCNT]
        );
        // paddd xmm0, xmm1
        assert!(
            function(&[0x66, 0x0f, 0xfe, 0xc1])
                .unwrap()
                .features
                .is_empty()
        );
    }

    #[test]
    fn calls_out_of_the_function_are_kept() {
        // call +0x10; jmp -7 (back to the start)
        let found = function(&[0xe8, 0x10, 0, 0, 0, 0xeb, 0xf9]).unwrap();
        assert_eq!(found.calls, [0x1015]);
    }

    #[test]
    fn what_is_no_code_is_refused() {
        assert!(function(&[0x06]).is_err());
        assert!(read(Path::new("/no/such/program")).is_err());
        assert!(read(&crate::workspace::root().join("Cargo.toml")).is_err());
    }
}
